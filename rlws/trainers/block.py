"""A block of rows in host memory, filled step by step."""

from typing import Any

import dm_env
import jax
import numpy as np

from rlws.settings import SettingError
from rlws.types import Row


class Block:
    """Rows [length, B, ...] in NumPy; `length` of them are filled.

    Written for speed: it is touched at every step of every environment. Each block has memory of its
    own, as JAX may still read, or on a CPU have borrowed, that of the one before.
    """

    def __init__(self, example: Row, capacity: int, num_envs: int):
        make = lambda x: np.empty((capacity, num_envs, *x.shape), x.dtype)
        self.rows = rows = jax.tree.map(make, example)
        self.length, self.capacity = 0, capacity
        self._timestep = rows.timestep
        self._observations, self._observation_tree = jax.tree.flatten(rows.timestep.observation)
        self._recorded = jax.tree.leaves((rows.action, rows.extras))
        self._actions, self._action_tree = jax.tree.flatten(rows.action)

    def begin(self, timesteps: list[dm_env.TimeStep]) -> dm_env.TimeStep:
        """Writes the timesteps of all environments into the next row; returns it, leaves [B, ...]."""
        t, (step_type, reward, discount, _) = self.length, self._timestep
        for i, timestep in enumerate(timesteps):
            step_type[t, i] = timestep.step_type
            reward[t, i] = 0.0 if timestep.reward is None else timestep.reward
            discount[t, i] = 1.0 if timestep.discount is None else timestep.discount
            if len(self._observations) == 1:
                self._observations[0][t, i] = timestep.observation
            else:
                leaves = jax.tree.leaves(timestep.observation)
                for buffer, leaf in zip(self._observations, leaves, strict=True):
                    buffer[t, i] = leaf
        observation = self._observation_tree.unflatten([x[t] for x in self._observations])
        return dm_env.TimeStep(step_type[t], reward[t], discount[t], observation)

    def end(self, action: Any, extras: Any) -> list[Any]:
        """Writes what the actor answered to that row; returns the action of each environment."""
        t, leaves = self.length, jax.tree.leaves((action, extras))
        for buffer, leaf in zip(self._recorded, leaves, strict=True):
            buffer[t] = np.asarray(leaf)  # waits for the device
        self.length += 1
        # Python numbers for scalars: environments check those faster than NumPy's.
        actions = [x[t].tolist() if x.ndim == 2 else list(x[t]) for x in self._actions]
        if len(actions) == 1:
            return actions[0]
        return [self._action_tree.unflatten(leaf) for leaf in zip(*actions, strict=True)]

    def check_finite(self, steps: int) -> None:
        """Raises a SettingError if an environment said NaN or infinity."""
        for path, x in jax.tree.leaves_with_path(self._timestep):
            if not np.issubdtype(x.dtype, np.floating) or np.isfinite(x[: self.length]).all():
                continue
            wrong = ~np.isfinite(x[: self.length])
            t, i = np.argwhere(wrong.reshape(*wrong.shape[:2], -1).any(-1))[0]
            raise SettingError(
                f"environment {i}: {jax.tree_util.keystr(path).lstrip('.')} must be finite, got "
                f"{x[t, i]} within the {self.length} rows before step {steps}; mend the environment"
            )
