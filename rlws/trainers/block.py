"""A block of rows in host memory, filled step by step."""

from typing import Any, TypeAlias

import dm_env
import jax
import numpy as np

from rlws.settings import SettingError
from rlws.types import Row

Timesteps: TypeAlias = (
    list[dm_env.TimeStep] | dm_env.TimeStep
)  # of each environment, or leaves [B, ...]


class Block:
    """Rows [capacity, B, ...] in NumPy; `length` of them are filled, and one timestep more.

    Written for speed: every step of every environment comes through here. Each block has memory of
    its own, as JAX may still read, or on a CPU have borrowed, that of the one before. `read` says
    which leaves of the timestep acting reads.
    """

    def __init__(self, example: Row, capacity: int, num_envs: int, read: list[bool]):
        make = lambda x: np.empty((capacity + 1, num_envs, *x.shape), x.dtype)
        self._rows = rows = jax.tree.map(make, example)
        self.length, self.capacity = 0, capacity
        self._step_type, self._reward, self._discount, observation = rows.timestep
        self._observations = jax.tree.leaves(observation)
        self._actions, self._action_tree = jax.tree.flatten(rows.action)
        self._extras = jax.tree.leaves(rows.extras)
        self._leaves = leaves = jax.tree.leaves(rows.timestep)
        self._read = [leaf for leaf, live in zip(leaves, read, strict=True) if live]
        self._plain = isinstance(observation, np.ndarray) and isinstance(rows.action, np.ndarray)

    @property
    def rows(self) -> Row:
        """The rows, those past `length` undefined."""
        return jax.tree.map(lambda x: x[:-1], self._rows)

    def following(self, timesteps: Timesteps) -> dm_env.TimeStep:
        """Returns the timesteps that follow the last row, leaves [B, ...]."""
        self.begin(timesteps)
        return jax.tree.map(lambda x: x[self.length], self._rows.timestep)

    def begin(self, timesteps: Timesteps) -> list[np.ndarray]:
        """Writes the timesteps of all environments as the next row; returns what is read of it."""
        if isinstance(timesteps, dm_env.TimeStep):
            for buffer, leaf in zip(self._leaves, jax.tree.leaves(timesteps), strict=True):
                buffer[self.length] = leaf
            return [x[self.length] for x in self._read]
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

    def end(self, action: Any, extras: Any) -> Any:
        """Writes what the actor answered to that row; returns the actions, leaves [B, ...]."""
        t, self.length = self.length, self.length + 1
        if self._extras:
            for buffer, leaf in zip(self._extras, jax.tree.leaves(extras), strict=True):
                buffer[t] = np.asarray(leaf)
        if self._plain:
            self._actions[0][t] = action = np.asarray(action)
            return action
        leaves = jax.device_get(jax.tree.leaves(action))
        for buffer, leaf in zip(self._actions, leaves, strict=True):
            buffer[t] = leaf
        return self._action_tree.unflatten(leaves)

    def check_finite(self, steps: int) -> None:
        """Raises a SettingError if an environment said NaN or infinity."""
        for path, x in jax.tree.leaves_with_path(self._rows.timestep):
            if not np.issubdtype(x.dtype, np.floating) or np.isfinite(x[: self.length]).all():
                continue
            place = tuple(np.argwhere(~np.isfinite(x[: self.length]))[0])
            raise SettingError(
                f"environment {place[1]}: {jax.tree_util.keystr(path).lstrip('.')} must be finite, "
                f"got {x[place]} within the {self.length} rows before step {steps}; "
                "mend the environment"
            )
