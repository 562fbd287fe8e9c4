"""Catch: move a paddle under a falling ball. As in bsuite (Osband et al., 2020).

https://github.com/google-deepmind/bsuite
"""

from typing import Annotated, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments import jax_environment
from rlws.settings import PositiveInt, Range
from rlws.types import Action, Array, EnvironmentSpec, Key

_PIXELS = 16  # side of a cell in a picture


class State(NamedTuple):
    """Where the ball and the paddle are; int32 []."""

    row: Array  # of the ball, from 0 at the top
    column: Array  # of the ball
    paddle: Array  # column; its row is the last


class Catch(jax_environment.JaxEnvironment):
    """The ball falls a row a step; reward at the bottom: 1 on the paddle, -1 beside it.

    Actions move the paddle left (0), not at all (1) or right (2), as far as the walls. The
    observation is the board, 1 where ball and paddle are. Episodes last `rows - 1` steps.
    """

    frames_per_second = 4

    rows: Annotated[int, Range(2)] = 10
    columns: PositiveInt = 5

    def spec(self) -> EnvironmentSpec:
        """Returns the specs; observations float32 [rows, columns], actions 0, 1 and 2."""
        board = (self.rows, self.columns)
        return EnvironmentSpec(
            observations=specs.BoundedArray(board, np.float32, 0, 1, "observation"),
            actions=specs.DiscreteArray(3, name="action"),
            rewards=specs.BoundedArray((), np.float32, -1, 1, "reward"),
            max_episode_steps=self.rows - 1,
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode: the ball anywhere in the top row, the paddle in the middle."""
        column = jax.random.randint(key, (), 0, self.columns, jnp.int32)
        state = State(jnp.int32(0), column, jnp.int32(self.columns // 2))
        return state, jax_environment.first(self._board(state))

    def step(self, state: State, action: Action) -> tuple[State, dm_env.TimeStep]:
        """Moves the paddle, then drops the ball a row."""
        paddle = jnp.clip(state.paddle + action - 1, 0, self.columns - 1).astype(jnp.int32)
        moved = State(state.row + 1, state.column, paddle)
        landed = moved.row == self.rows - 1
        reward = jnp.where(landed, jnp.where(paddle == state.column, 1.0, -1.0), 0.0)
        return moved, jax_environment.following(self._board(moved), reward, landed, False)

    def render(self, state: State) -> np.ndarray:
        """Returns a picture, uint8 [16 rows, 16 columns, 3]: the ball orange, the paddle white."""
        picture = np.zeros((self.rows, self.columns, 3), np.uint8)
        picture[self.rows - 1, int(state.paddle)] = 255
        picture[int(state.row), int(state.column)] = 255, 128, 0
        return picture.repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)

    def _board(self, state: State) -> Array:
        cells = jnp.arange(self.rows * self.columns)
        ball = state.row * self.columns + state.column
        paddle = (self.rows - 1) * self.columns + state.paddle
        board = (cells == ball) | (cells == paddle)
        return board.astype(jnp.float32).reshape(self.rows, self.columns)
