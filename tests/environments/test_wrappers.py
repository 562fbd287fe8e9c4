"""Wrappers: the same around either kind of environment, in any order, by name and in Python."""

import dataclasses

import dm_env
import gymnasium
import jax
import numpy as np
import pytest
from dm_env import specs

from rlws import environments
from rlws.environments.jax_environment import JaxEnvironment, first, following
from rlws.environments.repeats import repeats
from rlws.environments.wrappers import BY_NAME, Clip, Limit, Repeat, Resize, Stack, wrap
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec

LENGTH = 7  # steps of an episode of Count


class Count(JaxEnvironment):
    """Observation [t, 10 * t] and reward t at step t; terminates at `length`."""

    length: int = LENGTH

    def spec(self):
        return EnvironmentSpec(
            observations=specs.BoundedArray((2,), np.float32, 0, [100, 1000], "observation"),
            actions=specs.DiscreteArray(2, name="action"),
            rewards=specs.BoundedArray((), np.float32, 0, 100, "reward"),
            max_episode_steps=self.length,
        )

    def reset(self, key):
        return jax.numpy.int32(0), first(jax.numpy.zeros(2))

    def step(self, state, action):
        t = state + 1
        seen = t * jax.numpy.array([1.0, 10.0])
        return t, following(seen, t.astype(jax.numpy.float32), t >= self.length, False)


class Told(dm_env.Environment):
    """The same on a host; the array it returns is its own, and changes."""

    max_episode_steps, episode = LENGTH, 0

    def __init__(self):
        self._seen = np.zeros(2, np.float32)

    observation_spec = lambda self: Count().spec().observations
    action_spec = lambda self: Count().spec().actions
    reward_spec = lambda self: Count().spec().rewards
    discount_spec = lambda self: Count().spec().discounts

    def reset(self):
        self._t, self._seen[:] = 0, 0
        self.episode += 1
        return dm_env.restart(self._seen)

    def step(self, action):
        self._t += 1
        self._seen += [1, 10]
        if self._t == LENGTH:
            return dm_env.termination(float(self._t), self._seen)
        return dm_env.transition(float(self._t), self._seen)


def play(environment, steps=12):
    """Returns the timesteps of one kind or the other, from the first one on."""
    if isinstance(environment, JaxEnvironment):
        environment = environments.to_dm_env(environment)
    timesteps = [environment.reset()]
    timesteps = [timesteps[0]._replace(observation=np.array(timesteps[0].observation))]
    for _ in range(steps):
        found = environment.step(np.int32(0))
        timesteps.append(found._replace(observation=np.array(found.observation)))
    return timesteps


CHAINS = [
    (Limit(3),),
    (Clip(2.0),),
    (Stack(3),),
    (Repeat(3),),
    (Repeat(2), Clip(4.0), Stack(2), Limit(3)),
    (Stack(2), Stack(2), Repeat(2)),
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_both_kinds_give_the_same(chain):
    ours, theirs = wrap(Count(), *chain), wrap(Told(), *chain)
    for a, b in zip(play(ours), play(theirs), strict=True):
        assert a.step_type == b.step_type
        assert (a.reward, a.discount) == (b.reward, b.discount)
        np.testing.assert_array_equal(a.observation, b.observation)
    assert environments.spec(ours) == environments.spec(theirs)
    spec = environments.spec(ours)
    for timestep in play(ours):
        spec.observations.validate(timestep.observation)
        if not timestep.first():
            spec.rewards.validate(np.float32(timestep.reward))


def test_a_limit_truncates_and_leaves_terminations():
    kinds = [(t.step_type, t.discount) for t in play(wrap(Told(), Limit(3)), 5)]
    _, mid, last = dm_env.StepType
    assert kinds[:4] == [(0, None), (mid, 1), (mid, 1), (last, 1)]
    assert [t.last() for t in play(wrap(Told(), Limit(LENGTH)), 8)].index(True) == LENGTH
    ended = play(wrap(Told(), Limit(LENGTH)), LENGTH)[-1]
    assert ended.last()
    assert ended.discount == 0
    assert environments.spec(wrap(Count(), Limit(3))).max_episode_steps == 3
    assert environments.spec(wrap(Count(), Limit(300))).max_episode_steps == LENGTH


def test_repeated_actions_add_up_to_the_end_and_not_beyond():
    found = play(wrap(Told(), Repeat(3)), 4)
    assert [t.reward for t in found] == [None, 1 + 2 + 3, 4 + 5 + 6, 7, None]
    assert [t.discount for t in found] == [None, 1, 1, 0, None]
    spec = environments.spec(wrap(Count(), Repeat(3)))
    assert (spec.max_episode_steps, spec.rewards.maximum, spec.rewards.minimum) == (3, 300, 0)


def test_stacks_never_reach_across_a_beginning():
    found = [t.observation.tolist() for t in play(wrap(Told(), Stack(3)), 9)]
    assert found[:3] == [[0] * 6, [0, 0, 0, 0, 1, 10], [0, 0, 1, 10, 2, 20]]
    assert found[7] == [5, 50, 6, 60, 7, 70]
    assert found[8] == [0] * 6  # begun again
    assert found[9] == [0, 0, 0, 0, 1, 10]
    spec = environments.spec(wrap(Count(), Stack(3))).observations
    assert spec.maximum.tolist() == [100, 1000] * 3


class Seen(Count):
    """A mask beside the observation, or a picture for one."""

    picture: bool = False

    def spec(self):
        spec, mask = super().spec(), specs.BoundedArray((2,), bool, False, True)
        observations = {"action_mask": mask, "seen": spec.observations}
        if self.picture:
            observations = specs.BoundedArray((4, 6, 2), np.uint8, 0, 255)
        return spec._replace(observations=observations)

    def _shown(self, timestep):
        seen, t = timestep.observation, timestep.observation[0]
        if self.picture:
            shown = (jax.numpy.arange(48).reshape(4, 6, 2) + t).astype(jax.numpy.uint8)
        else:
            shown = {"action_mask": jax.numpy.stack([t < 3, t >= 3]), "seen": seen}
        return timestep._replace(observation=shown)

    def reset(self, key):
        state, timestep = super().reset(key)
        return state, self._shown(timestep)

    def step(self, state, action):
        state, timestep = super().step(state, action)
        return state, self._shown(timestep)


def test_the_action_mask_is_that_of_now():
    stacked = wrap(Seen(), Stack(2))
    step = jax.jit(stacked.step)
    state, timestep = jax.jit(stacked.reset)(jax.random.key(0))
    for t in (1, 2, 3):
        state, timestep = step(state, 0)
        assert timestep.observation["action_mask"].tolist() == [t < 3, t >= 3]
        assert timestep.observation["seen"].tolist() == [t - 1, 10 * (t - 1), t, 10 * t]
    assert stacked.spec().observations["action_mask"].shape == (2,)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_resized_pixels_are_means_of_what_they_cover(size):
    _, timestep = jax.jit(wrap(Seen(picture=True), Resize(size)).reset)(jax.random.key(0))
    picture = np.arange(48.0).reshape(4, 6, 2)
    # Every pixel as size x size equal ones, and means over blocks: exact, by hand.
    fine = picture.repeat(size, 0).repeat(size, 1)
    expected = fine.reshape(size, 4, size, 6, 2).mean((1, 3))
    assert timestep.observation.dtype == np.uint8
    np.testing.assert_allclose(timestep.observation, expected, atol=0.5001)
    host = wrap(environments.to_dm_env(Seen(picture=True)), Resize(size)).reset().observation
    np.testing.assert_array_equal(host, timestep.observation)
    assert environments.spec(wrap(Seen(picture=True), Resize(size))).observations.shape == (
        *(size, size),
        2,
    )


def test_what_a_wrapper_cannot_be_around_is_said():
    with pytest.raises(SettingError, match=r"resize.*must be a picture .*shape=.2,"):
        wrap(Count(), Resize(8))
    with pytest.raises(SettingError, match=r"stack.*must have an axis"):
        environments.make("gym:FrozenLake-v1+stack=2")


def test_names_say_wrappers_and_settings():
    catch = environments.make("jax:Catch,rows=6,columns=4+stack=2+limit=3")
    assert catch == wrap(environments.make("jax:Catch", rows=6, columns=4), Stack(2), Limit(3))
    assert catch.spec().observations.shape == (6, 8)
    assert environments.make("jax:Catch+clip").wrapper == Clip(1.0)
    typed = environments.make("jax:Catch,rows=1e1+limit=2k")
    assert (typed.environment.rows, typed.wrapper.steps) == (10, 2000)
    cartpole = environments.make("gym:CartPole-v1,max_episode_steps=5,sutton-barto-reward=true")
    assert cartpole.max_episode_steps == 5
    assert cartpole._env.unwrapped._sutton_barto_reward is True
    lake = environments.make("gym:FrozenLake-v1", map_name="8x8", is_slippery=False)
    assert lake.observation_spec().num_values == 64
    spaced = environments.make("gym:FrozenLake-v1, map_name = 8x8, is_slippery=0")
    assert spaced.observation_spec().num_values == 64


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jax:Catch,row=6", "no setting 'row'; did you mean 'rows'"),
        ("jax:Catch,rows=1", "rows must be at least 2, got 1"),
        ("jax:Catch,rows=1.5", "rows must be a whole number, got 1.5"),
        ("jax:Catch,rows", "must be name=value, each once, got 'rows'"),
        ("jax:Catch,rows=6,rows=7", "each once, got 'rows=7'"),
        ("jax:Catch+stak=4", "unknown value 'stak'; did you mean 'stack'"),
        ("jax:Catch+stack", "'stack' needs a count, got none; write stack=4"),
        ("jax:Catch+stack=no", "count must be a whole number, got 'no'"),
        ("jax:Catch+stack=0", "count must be "),
        ("jax:Cach+stack=2", "unknown name 'jax:Cach'; did you mean 'jax:Catch'"),
        ("gym:FrozenLake-v1,slippery=false", "no setting 'slippery'; did you mean 'is_slippery'"),
        ("gym:FrozenLake-v1, is_slippery=no", "is_slippery must be true or false, got 'no'; write"),
        (
            "gym:FrozenLake-v1?is_slippery=no&x=2",
            "follow commas; write gym:FrozenLake-v1,is_slippe",
        ),
        ("gym:Pendulum-v1,g=abc", "g must be a number, got 'abc'; by default it is 10"),
        ("gym:Pendulum-v1,g=", "g must be a number, got ''; by default it is 10"),
        ("gym:CartPole-v1,render_mode=human", "no setting 'render_mode'; it has sutton"),
        ("jax:Catch,max_episode_steps=3", r"a wrapper limits it, too: jax:Catch\+limit=500"),
    ],
)
def test_what_is_wrong_in_a_name_is_one_line(name, words):
    with pytest.raises(SettingError, match=words) as error:
        environments.make(name)
    assert "\n" not in str(error.value)


def test_a_wrapped_environment_is_what_it_was():
    plain = environments.make("gym:CartPole-v1")
    wrapped = environments.make("gym:CartPole-v1+repeat=2")
    assert repeats(wrapped)
    wrapped.episode = plain.episode = 5
    np.testing.assert_array_equal(wrapped.reset().observation, plain.reset().observation)
    assert wrapped.episode == 6
    assert wrapped.frames_per_second == plain.frames_per_second / 2

    class Opaque(Told):
        episode = property()  # it has none

    assert not hasattr(wrap(Opaque.__new__(Opaque), Limit(3)), "episode")
    drawn = environments.make("gym:CartPole-v1+stack=2", render=True)
    drawn.reset()
    assert drawn.render().shape == (400, 600, 3)
    drawn.close()


def test_wrappers_are_settings_and_share_programs():
    one, other = (environments.make("jax:Catch+stack=2") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert all(len(dataclasses.fields(wrapper)) == 1 for wrapper in BY_NAME.values())


def test_vectors_take_settings_and_refuse_wrappers():
    from rlws.environments.vector import make_vector

    vector = make_vector("gym:FrozenLake-v1,map_name=8x8", 2)
    assert vector.spec.observations.num_values == 64
    vector.close()
    with pytest.raises(SettingError, match="must be around environments that are stepped one by"):
        make_vector("gym:CartPole-v1+stack=4", 2)


def test_wrappers_agree_with_gymnasiums():
    def raw():
        return gymnasium.make("CartPole-v1")

    theirs = gymnasium.wrappers.FrameStackObservation(raw(), 3)
    ours = environments.make("gym:CartPole-v1+stack=3")
    timestep = ours.reset()
    theirs.reset(seed=0)
    theirs.unwrapped.state = ours._env.unwrapped.state
    for _ in range(12):
        timestep = ours.step(np.int32(1))
        observation, reward, terminated, _, _ = theirs.step(1)
        assert (timestep.reward, timestep.last()) == (reward, terminated)
        np.testing.assert_allclose(timestep.observation[-4:], observation[-1], rtol=1e-6)
        if terminated:
            break
