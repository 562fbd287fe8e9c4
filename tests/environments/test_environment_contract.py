"""dm_env's own conformance tests, and the rules all our dm_env environments share."""

import importlib.util

import gymnasium
import jax
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, test_utils

from rlws import environments
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.numerics import streams

MAKERS = {
    "gym": lambda seed=0, index=0: GymEnvironment("CartPole-v1", seed, index),
    "jax": lambda seed=0, index=0: environments.to_dm_env(environments.CartPole(), seed, index),
}
HAS_GYMNAX = importlib.util.find_spec("gymnax") is not None
if HAS_GYMNAX:
    MAKERS["gymnax"] = lambda seed=0, index=0: environments.to_dm_env(
        environments.make("gymnax:CartPole-v1"), seed, index
    )


class Conformance(test_utils.EnvironmentTestMixin):
    """Runs to the end of an episode and past it, unlike the mixin's own 20 actions."""

    length = 40

    def make_action_sequence(self):
        return (self.make_action() for _ in range(self.length))


class GymCartPoleTest(Conformance, absltest.TestCase):
    def make_object_under_test(self):
        return GymEnvironment("CartPole-v1")


class GymAcrobotTest(Conformance, absltest.TestCase):
    length = 520  # its time limit is 500

    def make_object_under_test(self):
        return GymEnvironment("Acrobot-v1")


class GymPendulumTest(Conformance, absltest.TestCase):
    length = 220  # its time limit is 200

    def make_object_under_test(self):
        return GymEnvironment("Pendulum-v1")


class JaxCartPoleTest(Conformance, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.CartPole())


class JaxCatchTest(Conformance, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.Catch())


@pytest.mark.skipif(not HAS_GYMNAX, reason="needs gymnax")
class GymnaxCartPoleTest(Conformance, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make("gymnax:CartPole-v1"))


@pytest.mark.skipif(not HAS_GYMNAX, reason="needs gymnax")
class GymnaxPendulumTest(Conformance, absltest.TestCase):
    length = 220  # its time limit is 200

    def make_object_under_test(self):
        return environments.to_dm_env(environments.make("gymnax:Pendulum-v1"))


def play(env, steps):
    """Returns the FIRST observation of the episode after one of at most this many steps."""
    env.reset()
    for _ in range(steps):
        if env.step(np.int32(1)).last():
            break
    return env.reset().observation


def play_out(env):
    timestep = env.reset()
    while not timestep.last():
        timestep = env.step(np.int32(0))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_reset_depends_on_seed_index_and_episode_alone(make):
    def starts(seed, index):
        env = make(seed, index)
        return [env.reset().observation for _ in range(3)]

    table = {(seed, index): starts(seed, index) for seed in (0, 1) for index in (0, 1)}
    np.testing.assert_array_equal(table[0, 0], starts(0, 0))
    assert len(np.unique(np.concatenate(list(table.values())), axis=0)) == 12


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_reset_does_not_depend_on_the_steps_of_earlier_episodes(make):
    np.testing.assert_array_equal(play(make(), 0), play(make(), 3))
    np.testing.assert_array_equal(play(make(), 0), play(make(), 600))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_step_before_reset_and_after_last_ignores_the_action(make):
    env, other = make(), make()
    ignored = object()  # no environment could take it
    first = env.step(ignored)
    assert first.step_type is StepType.FIRST
    np.testing.assert_array_equal(first.observation, other.reset().observation)
    while not env.step(np.int32(0)).last():
        pass
    second = env.step(ignored)
    assert second.step_type is StepType.FIRST
    assert second.reward is None
    assert second.discount is None
    np.testing.assert_array_equal(second.observation, other.reset().observation)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_episode_counts_and_may_be_set_to_resume(make):
    env, resumed = make(), make()
    play_out(env)
    play_out(env)
    assert env.episode == 2
    resumed.episode = 2
    np.testing.assert_array_equal(env.reset().observation, resumed.reset().observation)


def test_to_dm_env_draws_episodes_with_episode_key():
    env = environments.to_dm_env(environments.Catch(columns=1000), seed=3, index=5)
    env.reset()
    key = environments.episode_key(streams.key(3, streams.Stream.ENVIRONMENT), 5, 1)
    _, expected = environments.Catch(columns=1000).reset(key)
    np.testing.assert_array_equal(env.reset().observation, expected.observation)


def test_to_dm_env_compiles_once_for_equal_environments():
    traces = []

    class Counted(environments.Catch):
        def step(self, state, action):
            traces.append(self.rows)
            return super().step(state, action)

    for index in range(3):
        env = environments.to_dm_env(Counted(rows=7), index=index)
        for _ in range(3):
            env.step(np.int32(1))
    environments.to_dm_env(Counted(rows=8)).step(np.int32(1))
    assert traces == [7, 7, 8]  # to be checked, and to be compiled where it steps


def test_to_dm_env_accepts_array_settings():
    class Mapped(environments.Catch):
        layout: np.ndarray = None

    env = environments.to_dm_env(Mapped(layout=np.zeros(3)))
    assert env.step(0).first()
    assert env.step(0).mid()


def test_to_dm_env_returns_numpy():
    env = environments.to_dm_env(environments.CartPole())
    env.reset()
    reward_and_rest = jax.tree.leaves(env.step(np.int32(0))[1:])
    assert {type(leaf) for leaf in reward_and_rest} == {np.float32, np.ndarray}


@pytest.mark.parametrize(
    ("env", "shape"),
    [
        (GymEnvironment("CartPole-v1", render=True), (400, 600, 3)),
        (environments.to_dm_env(environments.CartPole()), (400, 600, 3)),
        (environments.to_dm_env(environments.Catch()), (160, 80, 3)),
    ],
    ids=["gym:CartPole", "jax:CartPole", "jax:Catch"],
)
def test_render_draws_the_state(env, shape):
    env.reset()
    before = env.render()
    for _ in range(5):
        env.step(np.int32(0))
    after = env.render()
    assert before.shape == shape
    assert before.dtype == np.uint8
    assert (before != after).any()
    env.close()


def test_cartpole_render_is_gymnasiums_picture():
    gym = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env = environments.CartPole()
    state, _ = env.reset(jax.random.key(0))
    gym.reset()
    gym.unwrapped.state = np.asarray(state.physics)
    np.testing.assert_array_equal(env.render(state), gym.render())
