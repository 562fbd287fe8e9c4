"""Deep sea: a reward that only a long way in one direction leads to. As in bsuite.

Osband et al., 2020, "Behaviour Suite for Reinforcement Learning".
https://github.com/google-deepmind/bsuite
"""

from typing import NamedTuple

import dm_env
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments import jax_environment
from rlws.settings import NonNegative, NonNegativeInt, PositiveInt
from rlws.types import Action, Array, EnvironmentSpec, Key


class State(NamedTuple):
    """Where the diver is; int32 []."""

    row: Array  # from 0 at the top
    column: Array  # from 0 on the left


class DeepSea(jax_environment.JaxEnvironment):
    """A diver sinks by a row a step, to the left or to the right; the treasure is at bottom right.

    It is worth 1. Each step to the right costs 0.01 / size, so the best return is 0.99, that of
    never going there 0, and a policy at random finds the treasure in one of 2^size episodes. Which
    action is right differs from cell to cell. Observations are one-hot, and 0 at the end.
    """

    size: PositiveInt = 10  # rows and columns, and steps of an episode
    cost: NonNegative = 0.01  # of a whole way to the right
    mapping: NonNegativeInt = 42  # the seed of which action is right where, as in bsuite

    def spec(self) -> EnvironmentSpec:
        """Returns the specs; observations float32 [size, size], actions 0 and 1."""
        board = (self.size, self.size)
        return EnvironmentSpec(
            observations=specs.BoundedArray(board, np.float32, 0, 1, "observation"),
            actions=specs.DiscreteArray(2, name="action"),
            max_episode_steps=self.size,
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode at the top left."""
        state = State(jnp.int32(0), jnp.int32(0))
        return state, jax_environment.first(self._board(state))

    def step(self, state: State, action: Action) -> tuple[State, dm_env.TimeStep]:
        """Goes to the left or to the right, and down."""
        board = (self.size, self.size)
        right_actions = np.random.RandomState(self.mapping).binomial(1, 0.5, board)
        cell = state.row * self.size + state.column
        right = action == jnp.asarray(right_actions, jnp.int32).ravel()[cell]
        found = right & (state.column == self.size - 1)
        reward = jnp.where(found, 1.0, 0.0) - jnp.where(right, self.cost / self.size, 0.0)
        column = jnp.clip(state.column + jnp.where(right, 1, -1), 0, self.size - 1)
        moved = State(state.row + 1, column.astype(jnp.int32))
        over = moved.row == self.size
        return moved, jax_environment.following(self._board(moved), reward, over, False)

    def _board(self, state: State) -> Array:
        rows, columns = (jnp.arange(self.size) == x for x in state)  # below the last row: nowhere
        return (rows[:, None] & columns[None]).astype(jnp.float32)
