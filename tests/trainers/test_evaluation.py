"""Evaluation: whole episodes, known returns, the same each time, wherever they are played."""

import dataclasses
import sys
import time
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import dqn, ppo, sac
from rlws import environments
from rlws.actor import Actor
from rlws.agent import Agent
from rlws.diagnose import probes
from rlws.diagnose.tabular import Tabular
from rlws.environments import Catch, JaxEnvironment, jax_environment, to_dm_env
from rlws.environments.checks import AgentFault, EnvironmentFault
from rlws.networks import MLP
from rlws.numerics import streams
from rlws.numerics.streams import Stream
from rlws.trainers import evaluation
from rlws.types import EnvironmentSpec

SEED = 5
OWN_SEED = streams.host_seed(SEED, Stream.EVALUATION)
SPECS = dict(
    observations=specs.Array((), np.float32),
    actions=specs.DiscreteArray(3),
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0, 1),
)


class Constant(Actor):
    """Always answers with the parameters."""

    def select_action(self, params, timestep, state, key):
        return jnp.int32(params), state, ()


class Chaser(Actor):
    """Plays Catch perfectly."""

    def select_action(self, params, timestep, state, key):
        board = timestep.observation
        ball, paddle = jnp.argmax(board[:-1].sum(0)), jnp.argmax(board[-1])
        return 1 + jnp.sign(ball - paddle).astype(jnp.int32), state, ()


class Dice(Actor):
    """Draws its actions, and remembers how many it has drawn."""

    def initial_state(self):
        return jnp.int32(0)

    def select_action(self, params, timestep, state, key):
        return (jax.random.randint(key, (), 0, 3) + state) % 3, state + 1, ()


class Fuse(JaxEnvironment):
    """Burns for 1 to 6 steps, drawn by the reset; each step pays the action. Or burns forever."""

    endless: bool = False

    def spec(self):
        return EnvironmentSpec(**SPECS)

    def reset(self, key):
        length = jax.random.randint(key, (), 1, 7)
        return length, jax_environment.first(length.astype(jnp.float32))

    def step(self, state, action):
        left = state if self.endless else state - 1
        ended = left == 0
        # An ended fuse pays absurdly: whoever steps on must not count it.
        reward = jnp.where(left < 0, 1e6, action)
        return left, jax_environment.following(left.astype(jnp.float32), reward, ended, False)


class Script(dm_env.Environment):
    """Episode k of environment i lasts 1 + (3 i + 5 k) % 7 steps, each paying 1 + action."""

    def __init__(self, index):
        self.index, self.episode, self.left, self.closed = index, 0, 0, False

    def reset(self):
        self.left = length(self.index, self.episode)
        self.episode += 1
        return dm_env.restart(np.float32(self.left))

    def step(self, action):
        assert self.left > 0, "stepped after the end"
        self.left -= 1
        end = dm_env.termination if self.left == 0 else dm_env.transition
        return end(1.0 + float(action), np.float32(self.left))

    def observation_spec(self):
        return SPECS["observations"]

    def action_spec(self):
        return SPECS["actions"]

    def close(self):
        self.closed = True


def length(index, episode):
    return 1 + (3 * index + 5 * episode) % 7


def play(actor, environment, episodes, params=1, seed=SEED):
    return evaluation.evaluator(agent(actor), environment, episodes)(params, seed)


def agent(evaluator) -> Agent:
    unused: Any = None
    return Agent(unused, unused, unused, evaluator)


def on_host(environment):
    return lambda seed, index: to_dm_env(environment, seed, index)


def fuses(seed, indices):
    """Returns the lengths of the first episodes of these environments, drawn without evaluation."""
    key = streams.key(seed, Stream.ENVIRONMENT)
    draw = lambda index: Fuse().reset(environments.episode_key(key, index, 0))[0]
    return np.array([int(draw(index)) for index in indices])


def test_device_episodes_are_complete_and_exact():
    returns, lengths = play(Constant(), Fuse(), 40)
    expected = fuses(OWN_SEED, range(40))
    assert set(expected) == {1, 2, 3, 4, 5, 6}
    np.testing.assert_array_equal(lengths, expected)
    np.testing.assert_array_equal(returns, expected)


def test_host_episodes_are_complete_and_exact():
    count = evaluation.HOST_ENVS
    returns, lengths = play(Constant(), lambda _, index: Script(index), 37)
    expected = [length(episode % count, episode // count) for episode in range(37)]
    np.testing.assert_array_equal(lengths, expected)
    np.testing.assert_array_equal(returns, 2 * np.array(expected))


def test_host_plays_fewer_episodes_than_environments():
    returns, lengths = play(Constant(), lambda _, index: Script(index), 3, params=0)
    np.testing.assert_array_equal(lengths, [1, 4, 7])
    np.testing.assert_array_equal(returns, [1, 4, 7])


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["jax:Catch", on_host(Catch())], ids=["device", "host"])
def test_returns_of_known_policies_are_known(environment):
    returns, lengths = play(Chaser(), environment, 25)
    np.testing.assert_array_equal(returns, np.ones(25))
    np.testing.assert_array_equal(lengths, np.full(25, 9))
    # Always left: catches the ball in the column by the wall, one in five.
    returns, _ = play(Constant(), environment, 25, params=0)
    assert set(returns) == {-1, 1}
    assert 1 <= (returns == 1).sum() <= 12


@pytest.mark.slow
@pytest.mark.parametrize("actor", [Constant(), Dice()], ids=["greedy", "random with state"])
def test_host_and_device_play_the_same_episodes(actor):
    # As many as there are host environments, so that each is the first of its own in both.
    count = evaluation.HOST_ENVS
    host = play(actor, on_host(Catch(columns=3)), count)
    device = play(actor, Catch(columns=3), count)
    np.testing.assert_array_equal(host, device)


@pytest.mark.slow
def test_host_and_device_agree_in_distribution():
    host = play(Dice(), on_host(Fuse()), 400, seed=0)[1]
    device = play(Dice(), Fuse(), 400, seed=0)[1]
    for lengths in (host, device):  # uniform on 1 to 6: the mean's standard error is 0.085
        np.testing.assert_allclose(lengths.mean(), 3.5, atol=4 * 0.085)
        assert set(lengths) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("environment", [Fuse(), on_host(Fuse())], ids=["device", "host"])
def test_calls_repeat_whatever_lies_between_and_seeds_differ(environment):
    evaluate = evaluation.evaluator(agent(Constant()), environment, 15)
    first = evaluate(1, SEED)
    other = evaluate(0, SEED)
    np.testing.assert_array_equal(first, evaluate(1, SEED))
    np.testing.assert_array_equal(other[1], first[1])
    np.testing.assert_array_equal(other[0], np.zeros(15))
    assert not np.array_equal(first[1], play(Constant(), environment, 15, seed=SEED + 1)[1])


def test_evaluation_has_seeds_of_its_own():
    seen = []

    def make(seed, index):
        seen.append((seed, index))
        return Script(index)

    play(Constant(), make, 4)
    assert seen == [(OWN_SEED, index) for index in range(4)]
    assert OWN_SEED != SEED
    # Nor does the device play what training would.
    assert not np.array_equal(play(Constant(), Fuse(), 20)[1], fuses(SEED, range(20)))


@pytest.mark.parametrize("place", [lambda e: e, on_host], ids=["device", "host"])
def test_endless_episodes_are_cut_and_have_no_return(monkeypatch, place):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 7)
    returns, lengths = play(Constant(), place(Fuse(endless=True)), 12)
    np.testing.assert_array_equal(lengths, np.full(12, 7))
    np.testing.assert_array_equal(returns, np.full(12, np.nan))


def test_host_environments_are_closed_also_on_error():
    made = []

    class Broken(Script):
        def step(self, action):
            raise RuntimeError("gears jammed")

    def make(kind):
        def one(_, index):
            made.append(kind(index))
            return made[-1]

        return one

    play(Constant(), make(Script), 3)
    with pytest.raises(RuntimeError, match="gears jammed"):
        play(Constant(), make(Broken), 3)
    assert len(made) == 6
    assert all(env.closed for env in made)


def test_film_shows_every_state_of_one_episode():
    frames, rate = evaluation.film(agent(Chaser()), 1, "jax:Catch", SEED)
    frames = list(frames)
    assert rate == 4
    assert len(frames) == 10
    assert {frame.shape for frame in frames} == {(160, 80, 3)}
    # The ball falls a cell a frame, and lands on the paddle.
    orange = [np.argwhere((frame == (255, 128, 0)).all(-1))[0, 0] // 16 for frame in frames]
    assert orange == list(range(10))
    assert not (frames[-1] == 255).all(-1).any()


def test_film_plays_in_real_time_where_the_environment_knows_it():
    frames, rate = evaluation.film(agent(Constant()), 1, "gym:CartPole-v1", SEED)
    assert rate == 50
    assert next(frames).shape == (400, 600, 3)
    frames.close()


class Odd(Script):
    """Does something in its fourth step, the third of its second episode if it is environment 0."""

    def __init__(self, index, fault):
        super().__init__(index)
        self._fault, self._steps = fault, 0

    def step(self, action):
        self._steps += 1
        timestep = super().step(action)
        return self._fault(timestep) if (self.index, self._steps) == (0, 4) else timestep


def fails():
    raise ValueError("broken joint")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            lambda x: x._replace(observation=np.float32("nan")),
            "observation must be finite, got nan",
        ),
        (lambda x: x._replace(reward=float("nan")), "reward must be finite, got nan"),
        (lambda x: x._replace(observation=np.zeros(2, np.float32)), r"got float32\[2\]"),
        (lambda x: x._replace(step_type=dm_env.StepType.FIRST), "must be MID or LAST, got FIRST"),
        (lambda x: None, "must return a dm_env.TimeStep, got None"),
        (lambda x: sys.exit(0), "must not exit"),
        (lambda x: time.sleep(60), "must answer within environment_timeout=0.2 s"),
    ],
)
def test_host_environments_that_go_wrong_are_named(fault, says):
    make = lambda _, index: Odd(index, fault)
    evaluate = evaluation.evaluator(agent(Constant()), make, 11, 0.2)
    place = "environment 0, in the evaluation, episode 10, step 3"
    with pytest.raises(EnvironmentFault, match=f"{place}.*{says}"):
        evaluate(1, SEED)


def test_host_environments_that_raise_are_named():
    make = lambda _, index: Odd(index, lambda x: fails())
    with pytest.raises(ValueError, match="broken joint") as error:
        play(Constant(), make, 11)
    assert error.value.__notes__ == [
        "environment 0, in the evaluation, episode 10, step 3, after 3 steps"
    ]


@pytest.mark.parametrize("episodes", [5, 12])
def test_device_environments_that_go_wrong_are_named(episodes):
    class Poisoned(Fuse):
        def step(self, state, action):
            state, timestep = super().step(state, action)
            bad = jnp.where(state == 1, jnp.nan, timestep.observation)
            return state, timestep._replace(observation=bad)

    lengths = fuses(OWN_SEED, range(episodes))
    first = int(np.argmin(np.where(lengths > 1, lengths, 7)))  # to show it
    says = (
        f"Poisoned, environment {first}, in the evaluation, episode 0, step {lengths[first] - 1}: "
    )
    with pytest.raises(EnvironmentFault, match=says + "observation must be finite, got nan"):
        play(Constant(), Poisoned(), episodes)


@pytest.mark.parametrize("place", [lambda e: e, on_host], ids=["device", "host"])
def test_a_policy_that_goes_wrong_is_to_blame(place):
    with pytest.raises(AgentFault, match=r"^policy in .*action must be within \[0, 2\], got"):
        play(Constant(), place(Fuse()), 5, params=7)


def test_a_film_of_an_environment_that_goes_wrong_names_it():
    class Filmed(Odd):
        def render(self):
            return np.zeros((4, 4, 3), np.uint8)

        def reset(self):
            self.episode = 4  # which is long enough
            return super().reset()

    make = lambda _, index: Filmed(index, lambda x: x._replace(reward=float("nan")))
    frames, _ = evaluation.film(agent(Constant()), 1, make, SEED)
    with pytest.raises(
        EnvironmentFault, match="environment 0, in the film, episode 0, step 4: rew"
    ):
        list(frames)


@pytest.mark.parametrize("kind", [ppo, dqn, sac])
def test_evaluation_is_compiled_once_for_settings_that_it_does_not_see(kind):
    environment = Tabular(jax.tree.map(jnp.asarray, probes.chain()), kind is sac)
    config = kind.Config(MLP((4,)))
    others = [dataclasses.replace(config, learning_rate=rate) for rate in (1e-3, 1e-4)]
    acting = [other.make(environment.spec()).evaluator for other in others]
    assert acting[0] == acting[1]
    plays = [evaluation._compiled_act(evaluator) for evaluator in acting]
    assert plays[0] is plays[1]
