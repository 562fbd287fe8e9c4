"""Catch, by table."""

import functools

import jax
import numpy as np
import pytest
from dm_env import StepType

from rlws.environments import Catch
from rlws.environments.catch import State
from rlws.settings import SettingError

LEFT, STAY, RIGHT = 0, 1, 2
play = jax.jit(functools.partial(jax.lax.scan, Catch().step))


@pytest.mark.parametrize(
    ("column", "actions", "reward"),
    [
        (2, [STAY] * 9, 1),  # the paddle starts in the middle
        (2, [STAY] * 8 + [RIGHT], -1),  # the last move counts
        (1, [STAY] * 8 + [LEFT], 1),
        (0, [LEFT] * 9, 1),  # the walls stop it
        (4, [RIGHT] * 9, 1),
        (1, [LEFT] * 9, -1),
        (1, [LEFT] * 8 + [RIGHT], 1),  # so one step back from the wall suffices
        (3, [RIGHT] * 8 + [LEFT], 1),
        (0, [RIGHT] * 9, -1),
        (4, [STAY] * 7 + [RIGHT] * 2, 1),
    ],
)
def test_catch_rewards_only_a_caught_ball(column, actions, reward):
    _, timesteps = play(State(np.int32(0), np.int32(column), np.int32(2)), np.array(actions))
    np.testing.assert_array_equal(timesteps.reward, [0] * 8 + [reward])
    np.testing.assert_array_equal(timesteps.discount, [1] * 8 + [0])
    np.testing.assert_array_equal(timesteps.step_type, [StepType.MID] * 8 + [StepType.LAST])


def test_catch_shows_ball_and_paddle():
    step = jax.jit(Catch(rows=3, columns=4).step)
    state = State(np.int32(0), np.int32(3), np.int32(2))
    boards = []
    for action in (LEFT, RIGHT):
        state, timestep = step(state, action)
        boards.append(timestep.observation)
    np.testing.assert_array_equal(boards[0], [[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]])
    np.testing.assert_array_equal(boards[1], [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]])
    assert boards[0].dtype == np.float32


def test_catch_reset_drops_the_ball_from_any_column():
    env = Catch(rows=6, columns=5)
    reset = jax.jit(lambda key: jax.vmap(env.reset)(jax.random.split(key, 5000)))
    state, timestep = jax.device_get(reset(jax.random.key(0)))
    counts = np.bincount(state.column, minlength=5)
    assert (np.abs(counts - 1000) < 150).all()  # 5 standard deviations
    assert (state.paddle == 2).all()
    assert (state.row == 0).all()
    np.testing.assert_array_equal(timestep.observation[:, 0].argmax(-1), state.column)
    np.testing.assert_array_equal(timestep.observation.sum((1, 2)), 2)


def test_catch_spec_bounds_its_episodes():
    spec = Catch(rows=6, columns=3).spec()
    assert spec.observations.shape == (6, 3)
    assert spec.actions.num_values == 3
    assert spec.max_episode_steps == 5


def test_catch_needs_a_row_to_fall_to():
    with pytest.raises(SettingError, match=r"Catch\.rows must be at least 2, got 1"):
        Catch(rows=1)
