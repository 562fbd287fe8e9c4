"""Host memory for a block of rows, filled step by step."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import dm_env
import jax
import numpy as np

from rlws.environments.checks import check_observations, check_rules, check_timestep
from rlws.environments.rules import LAST, Rule, narrowing, rules
from rlws.trainers.blocks import whereabouts
from rlws.types import EnvironmentSpec, Row

Timesteps: TypeAlias = (
    list[dm_env.TimeStep] | dm_env.TimeStep
)  # of each environment, or leaves [B, ...]

# What needs no closer look, as a reward or a discount.
NUMBERS = {float, int, np.float32, np.float64, np.int32, np.int64}


class RowBuffer:
    """Rows [capacity, B, ...] in NumPy; `length` of them are filled, and one timestep more.

    Written for speed: every step of every environment comes through here. Each block has memory of
    its own, as JAX may still read, or on a CPU have borrowed, that of the one before. `read` says
    which leaves of the timestep acting reads.

    Attributes:
      begun: of each environment, the episode and the step of it in which the first row is.
    """

    def __init__(
        self,
        example: Row,
        capacity: int,
        num_envs: int,
        read: list[bool],
        spec: EnvironmentSpec,
        begun: tuple[Sequence[int], Sequence[int]],
    ):
        self.begun, self._resumed = begun, 0
        make = lambda x: np.zeros((capacity + 1, num_envs, *x.shape), x.dtype)
        self._rows = rows = jax.tree.map(make, example)
        self.length = 0
        self._step_type, self._reward, self._discount, observation = rows.timestep
        seen, kinds = jax.tree.leaves(observation), jax.tree.leaves(spec.observations)
        # What has a narrower type for JAX is kept as it came, too, to be compared once a block.
        self._observations = [
            x if x.dtype == kind.dtype else np.zeros(x.shape, kind.dtype)
            for x, kind in zip(seen, kinds, strict=True)
        ]
        paths = jax.tree.leaves_with_path(spec.observations)
        three = zip(paths, self._observations, seen, strict=True)
        self._narrowed = [(*path, wide, x) for path, wide, x in three if wide is not x]
        self._actions, self._action_tree = jax.tree.flatten(rows.action)
        self._extras = jax.tree.leaves(rows.extras)
        self._leaves = leaves = jax.tree.leaves(rows.timestep)
        self._read = [leaf for leaf, live in zip(leaves, read, strict=True) if live]
        self._spec, self._tree = spec, jax.tree.structure(spec.observations)
        self._kinds = [(kind.shape, kind.dtype) for kind in kinds]  # that need no closer look
        self._plain = isinstance(observation, np.ndarray) and isinstance(rows.action, np.ndarray)

    def restore(self, rows: Row, begun: tuple[Sequence[int], Sequence[int]]) -> None:
        """Fills an empty block with rows [n, B, ...]."""
        self.begun, self._resumed = begun, len(rows.timestep.step_type)
        for buffer, saved in zip(jax.tree.leaves(self._rows), jax.tree.leaves(rows), strict=True):
            self.length = len(saved)
            buffer[: self.length] = saved

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
            self._write_all(timesteps)
        else:
            for i, timestep in enumerate(timesteps):
                try:
                    self._write(i, timestep)
                except Exception:
                    # Which says what is wrong.
                    check_timestep(self._spec, timestep, self._who(self.length, i))
                    arrays = jax.tree.map(np.asarray, timestep.observation)
                    self._write(i, timestep._replace(observation=arrays))
        t = self.length
        for *_, wide, x in self._narrowed:
            x[t] = wide[t]
        return [x[t] for x in self._read]

    def _write_all(self, timesteps: dm_env.TimeStep) -> None:
        t, (step_type, reward, discount, observation) = self.length, timesteps
        leaves, tree = jax.tree.flatten(observation)
        kinds = [(np.shape(x)[1:], getattr(x, "dtype", None)) for x in leaves]
        if tree != self._tree or kinds != self._kinds:
            check_observations(self._spec, observation, axes=1)
        self._step_type[t], self._reward[t], self._discount[t] = step_type, reward, discount
        for buffer, leaf in zip(self._observations, leaves, strict=True):
            buffer[t] = leaf

    def _write(self, i: int, timestep: dm_env.TimeStep) -> None:
        t = self.length
        self._step_type[t, i], reward, discount, observation = timestep
        if type(reward) not in NUMBERS or type(discount) not in NUMBERS:
            check_timestep(self._spec, timestep, self._who(t, i))
            reward = 0.0 if reward is None else reward
            discount = 1.0 if discount is None else discount
        self._reward[t, i], self._discount[t, i] = reward, discount
        if self._plain:
            leaves = [observation]
        else:
            leaves, tree = jax.tree.flatten(observation)
            if tree != self._tree:
                check_timestep(self._spec, timestep, self._who(t, i))
        for buffer, leaf, (shape, dtype) in zip(
            self._observations, leaves, self._kinds, strict=True
        ):
            if leaf.shape != shape or leaf.dtype is not dtype:
                check_timestep(self._spec, timestep, self._who(t, i))
            buffer[t, i] = leaf

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

    def follow(self, action: Any, begun: tuple[Sequence[int], Sequence[int]]) -> None:
        """Begins anew, in the same memory, with the timestep begun last and the answer to it."""
        check_rules(self._of_narrowed(self.length), lambda t, i: self._who(self.length, i))
        if self.length:
            for x in self._leaves:
                x[0] = x[1]
        for buffer, leaf in zip(self._actions, jax.tree.leaves(action), strict=True):
            buffer[0] = leaf
        self.begun, self.length = begun, 1

    def check(self) -> None:
        """Checks the rows and the timestep that was begun after them.

        Raises:
          EnvironmentFault: an environment said NaN or infinity, or did not restart where it must.
          AgentFault: an action is NaN, or beyond what there is to choose from.
        """
        n, rows = self.length, self._rows
        action = jax.tree.map(lambda x: x[:n], rows.action)
        after = jax.tree.map(lambda x: x[1 : n + 1], rows.timestep)
        before = self._step_type[:n]
        if 0 < self._resumed <= n:
            # Where an episode that had just begun was lost, what came next is an end, too.
            t, before = self._resumed - 1, before.copy()
            before[t] = np.where(after.step_type[t] == LAST, 1, before[t])
        found = self._of_narrowed(1) + rules(self._spec, action, before, after)
        check_rules(found, lambda t, i: self._who(t + 1, i))

    def _of_narrowed(self, first: int) -> list[Rule]:
        """Returns the rules of what was kept as it came, from this row on."""
        now = slice(first, self.length + 1)
        return [
            narrowing(f"observation{jax.tree_util.keystr(path)}", spec, wide[now], x.dtype)
            for path, spec, wide, x in self._narrowed
        ]

    def _who(self, t: int, i: int) -> str:
        """Returns what to call environment i in row t."""
        episode, step = (int(x[i]) for x in self.begun)
        return f"environment {i}, {whereabouts(self._step_type[:t, i], episode, step)}"
