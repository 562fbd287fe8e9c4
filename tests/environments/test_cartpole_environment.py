"""The JAX CartPole against gymnasium's, step for step."""

import functools

import gymnasium
import jax
import numpy as np
import pytest
from dm_env import StepType

from rlws.environments import CartPole, spec
from rlws.environments.cartpole import State
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.settings import SettingError

ENV = CartPole()
step, step_many = jax.jit(ENV.step), jax.jit(jax.vmap(ENV.step))


def record(choose, episodes):
    """Plays gymnasium; returns its states [T + 1, 4], actions and ends [T], episode by episode."""
    env = gymnasium.make("CartPole-v1")
    for episode in range(episodes):
        env.reset(seed=episode)
        # Both sides start from one float32 state.
        env.unwrapped.state = np.float64(np.float32(env.unwrapped.state))
        states, actions, ends, done = [env.unwrapped.state], [], [], False
        while not done:
            action = choose(states[-1])
            _, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            states.append(env.unwrapped.state)
            actions.append(action)
            ends.append((reward, terminated, truncated))
        yield np.array(states), np.array(actions, np.int32), np.array(ends)


@functools.cache
def random_episodes():
    rng = np.random.default_rng(0)
    return list(record(lambda _: int(rng.integers(2)), 1000))


@functools.cache
def balanced_episodes():
    gains = np.array([0.1, 0.3, 3.0, 1.0])
    return list(record(lambda state: int(gains @ state > 0), 20))


def pad(arrays):
    return np.stack([np.pad(a, [(0, 200 - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in arrays], 1)


def test_step_follows_gymnasium_through_random_episodes():
    states, actions, ends = zip(*random_episodes(), strict=True)

    def body(state, action):
        return step_many(state, action)

    initial = np.float32([s[0] for s in states])
    start = State(initial, np.zeros(len(states), np.int32))
    _, timesteps = jax.lax.scan(body, start, pad(actions))
    timesteps = jax.device_get(timesteps)
    for i, (state, end) in enumerate(zip(states, ends, strict=True)):
        t = slice(len(end))
        reward, terminated, truncated = end.T
        # Open loop, so float32 rounding (1e-7) grows with the pole's instability, some 8 % a step:
        # to 2e-5 in the longest episode, of 76. No state comes so close to a limit that it matters.
        np.testing.assert_allclose(timesteps.observation[t, i], state[1:], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(timesteps.reward[t, i], reward)
        np.testing.assert_array_equal(timesteps.discount[t, i], 1 - terminated)
        last = timesteps.step_type[t, i] == StepType.LAST
        np.testing.assert_array_equal(last, terminated + truncated > 0)


def test_step_follows_gymnasium_through_balanced_episodes():
    # Teacher-forced, each step from gymnasium's own state: over 500 steps in open loop the pole's
    # instability amplifies float32 rounding until the two runs have nothing to do with each other.
    states, actions, ends = zip(*balanced_episodes(), strict=True)
    assert [len(a) for a in actions] == [500] * 20
    before = np.float32(np.concatenate([s[:-1] for s in states]))
    time = np.concatenate([np.arange(len(a), dtype=np.int32) for a in actions])
    _, timesteps = step_many(State(before, time), np.concatenate(actions))
    after = np.concatenate([s[1:] for s in states])
    reward, terminated, truncated = np.concatenate(ends).T
    np.testing.assert_allclose(timesteps.observation, after, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(timesteps.reward, reward)
    np.testing.assert_array_equal(timesteps.discount, 1 - terminated)
    np.testing.assert_array_equal(timesteps.step_type == StepType.LAST, truncated)
    assert truncated.sum() == 20
    assert terminated.sum() == 0


@pytest.mark.parametrize(
    ("angle", "time", "step_type", "discount"),
    [
        (0.0, 498, StepType.MID, 1.0),
        (0.0, 499, StepType.LAST, 1.0),  # truncated
        (0.3, 0, StepType.LAST, 0.0),  # terminated
        (0.3, 499, StepType.LAST, 0.0),  # both: termination counts
    ],
)
def test_step_discount_tells_termination_from_truncation(angle, time, step_type, discount):
    _, timestep = step(State(np.float32([0.0, 0.0, angle, 0.0]), np.int32(time)), 0)
    assert timestep.step_type == step_type
    assert timestep.discount == discount
    assert timestep.reward == 1.0


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("limit", "position"), [(2.4, 0), (np.radians(12), 2)])
def test_step_terminates_beyond_each_limit(limit, position, sign):
    for excess, discount in ((-1e-4, 1.0), (1e-4, 0.0)):
        physics = np.zeros(4, np.float32)
        physics[position] = sign * (limit + excess)
        assert step(State(physics, np.int32(0)), 1)[1].discount == discount


def test_reset_draws_uniformly_within_a_twentieth():
    reset = jax.jit(lambda key: jax.vmap(ENV.reset)(jax.random.split(key, 10_000)))
    state, timestep = jax.device_get(reset(jax.random.key(0)))
    draws = np.sort(state.physics, axis=0)
    uniform = np.linspace(-0.05, 0.05, len(draws))[:, None]
    # Kolmogorov-Smirnov: exceeded by one uniform sample in 100,000.
    assert np.abs(draws - uniform).max() / 0.1 < 2.47 / np.sqrt(len(draws))
    np.testing.assert_allclose(draws[[0, -1]].T, [[-0.05, 0.05]] * 4, rtol=0, atol=1e-4)
    assert (np.abs(np.corrcoef(state.physics.T) - np.eye(4)) < 0.05).all()
    np.testing.assert_array_equal(timestep.observation, state.physics)
    assert (state.time == 0).all()


def test_spec_equals_gymnasiums():
    ours, theirs = ENV.spec(), spec(GymEnvironment("CartPole-v1"))
    assert ours.observations == theirs.observations
    assert ours.actions == theirs.actions
    assert ours.max_episode_steps == theirs.max_episode_steps == 500


def test_cartpole_time_limit_is_a_checked_setting():
    limited = jax.jit(CartPole(max_episode_steps=3).step)
    _, timestep = limited(State(np.zeros(4, np.float32), np.int32(2)), 0)
    assert timestep.step_type == StepType.LAST
    with pytest.raises(SettingError, match=r"CartPole\.max_episode_steps must be .* 1, got 0"):
        CartPole(max_episode_steps=0)
