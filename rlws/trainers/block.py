"""A block of rows in host memory, filled step by step."""

from typing import Any

import dm_env
import jax
import numpy as np

from rlws.settings import SettingError
from rlws.types import Row


class Block:
    """Rows [length, B, ...] in NumPy; `length` of them are filled.

    Written for speed: every step of every environment comes through here. Each block has memory of
    its own, as JAX may still read, or on a CPU have borrowed, that of the one before. `read` says
    which leaves of the timestep acting reads.
    """

    def __init__(self, example: Row, capacity: int, num_envs: int, read: list[bool]):
        make = lambda x: np.empty((capacity, num_envs, *x.shape), x.dtype)
        self.rows = rows = jax.tree.map(make, example)
        self.length, self.capacity = 0, capacity
        self._step_type, self._reward, self._discount, observation = rows.timestep
        self._observations = jax.tree.leaves(observation)
        self._actions, self._action_tree = jax.tree.flatten(rows.action)
        self._extras = jax.tree.leaves(rows.extras)
        leaves = jax.tree.leaves(rows.timestep)
        self._read = [leaf for leaf, live in zip(leaves, read, strict=True) if live]
        self._plain = isinstance(observation, np.ndarray) and isinstance(rows.action, np.ndarray)

    def begin(self, timesteps: list[dm_env.TimeStep]) -> list[np.ndarray]:
        """Writes the timesteps of all environments as the next row; returns what is read of it."""
        t, step_type, reward, discount = self.length, self._step_type, self._reward, self._discount
        for i, timestep in enumerate(timesteps):
            step_type[t, i], r, d, observation = timestep
            reward[t, i] = 0.0 if r is None else r
            discount[t, i] = 1.0 if d is None else d
            if self._plain:
                self._observations[0][t, i] = observation
            else:
                leaves = jax.tree.leaves(observation)
                for buffer, leaf in zip(self._observations, leaves, strict=True):
                    buffer[t, i] = leaf
        return [x[t] for x in self._read]

    def end(self, action: Any, extras: Any) -> list[Any]:
        """Writes what the actor answered to that row; returns the action of each environment."""
        t, self.length = self.length, self.length + 1
        leaves = [np.asarray(action)] if self._plain else jax.device_get(jax.tree.leaves(action))
        for buffer, leaf in zip(self._actions, leaves, strict=True):
            buffer[t] = leaf
        if self._extras:
            for buffer, leaf in zip(self._extras, jax.tree.leaves(extras), strict=True):
                buffer[t] = np.asarray(leaf)
        # Python numbers for scalars: environments check those faster than NumPy's.
        actions = [x.tolist() if x.ndim == 1 else list(x) for x in leaves]
        if self._plain:
            return actions[0]
        return [self._action_tree.unflatten(leaf) for leaf in zip(*actions, strict=True)]

    def check_finite(self, steps: int) -> None:
        """Raises a SettingError if an environment said NaN or infinity."""
        for path, x in jax.tree.leaves_with_path(self.rows.timestep):
            if not np.issubdtype(x.dtype, np.floating) or np.isfinite(x[: self.length]).all():
                continue
            place = tuple(np.argwhere(~np.isfinite(x[: self.length]))[0])
            raise SettingError(
                f"environment {place[1]}: {jax.tree_util.keystr(path).lstrip('.')} must be finite, "
                f"got {x[place]} within the {self.length} rows before step {steps}; "
                "mend the environment"
            )
