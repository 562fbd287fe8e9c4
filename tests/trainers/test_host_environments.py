"""What acts and where it does, on a host: who is to blame, and what is kept of long episodes."""

import dataclasses

import dm_env
import gymnasium
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from dm_env import specs
from plain import IN_BLOCKS

from rlws.actor import Actor
from rlws.environments.checks import AgentFault, EnvironmentFault
from rlws.numerics import trees
from rlws.trainers import HostTrainer, Snapshot
from rlws.trainers.host_environments import serial


class Fixed(Actor):
    """Always answers the same, and records what another actor does."""

    inner: Actor
    answer: float | int | tuple

    def initial_state(self):
        return self.inner.initial_state()

    def select_action(self, params, timestep, state, key):
        _, state, extras = self.inner.select_action(params, timestep, state, key)
        return jnp.asarray(self.answer), state, extras


class Acting(plain.Config):
    """Answers always the same."""

    answer: float | int | tuple = 0

    def make(self, spec):
        agent = super().make(spec)
        return dataclasses.replace(agent, actor=Fixed(agent.actor, self.answer))


class Count(dm_env.Environment):
    """Takes down the actions it gets; never ends."""

    def __init__(self, spec):
        self._spec, self.actions, self.episode = spec, [], 0

    def reset(self):
        self.episode += 1
        return dm_env.restart(np.zeros(1, np.float32))

    def step(self, action):
        self.actions.append(action)
        return dm_env.transition(0.0, np.full(1, len(self.actions), np.float32))

    def observation_spec(self):
        return specs.Array((1,), np.float32)

    def action_spec(self):
        return self._spec


DISCRETE, REAL = specs.DiscreteArray(3), specs.BoundedArray((2,), np.float32, -1, 1)


@pytest.mark.parametrize(
    ("spec", "answer", "says", "seen"),
    [
        (
            DISCRETE,
            3,
            r"environment 0, episode 0, step 1: action must be within \[0, 2\], got 3",
            0,
        ),
        (DISCRETE, -1, r"action must be within \[0, 2\], got -1", 0),
        (DISCRETE, (1, 1), r"action must be int32\[\], .* got int32\[2\]", 0),
        (DISCRETE, 1.0, r"action must be int32\[\], .* got float32\[\]", 0),
        (REAL, (0.0, float("nan")), "step 1: action must be finite, got nan", 8),
        (REAL, 0.0, r"action must be float32\[2\], .* got float32\[\]", 0),
    ],
)
def test_a_policy_is_to_blame_for_its_actions(spec, answer, says, seen):
    env = Count(spec)
    with pytest.raises(AgentFault, match=says):
        list(HostTrainer().train(_acting(answer), lambda seed, index: env, steps=20))
    assert len(env.actions) == seen  # reals are looked at once a block


def test_a_policy_is_to_blame_for_what_an_environment_raises_of_it():
    class Proud(Count):
        def step(self, action):
            raise ValueError("no such action")

    make = lambda seed, index: Proud(REAL)
    with pytest.raises(AgentFault, match="action must be finite"):
        list(HostTrainer().train(_acting((float("nan"), 0.0)), make, steps=20))


@pytest.mark.parametrize(
    ("spec", "answer"),
    [(specs.DiscreteArray(3, np.int64), 2), (specs.Array((2,), np.float64), (0.5, 1.0))],
)
def test_actions_are_of_the_type_of_their_spec_and_may_be_changed(spec, answer):
    env = Count(spec)
    list(HostTrainer().train(_acting(answer), lambda seed, index: env, steps=9))
    for action in env.actions:
        spec.validate(action)
        np.testing.assert_array_equal(action, answer)
        assert action.ndim == 0 or action.flags.writeable


def _acting(answer):
    return Acting(IN_BLOCKS.adder, answer=answer)


@pytest.mark.slow
def test_no_log_is_kept_of_an_episode_that_is_too_long(monkeypatch):
    monkeypatch.setattr(serial, "LONG", 6)
    make = lambda seed, index: Count(DISCRETE)
    *_, last = HostTrainer().train(IN_BLOCKS, make, steps=10)
    saved = trees.flatten(last.snapshot().arrays)
    assert not [name for name in saved if "actions_" in name]
    (warning,) = last.warnings
    assert warning.startswith("environment 0, episode 0, step 6: no longer kept")
    resumed = Snapshot(saved, last.snapshot().facts)
    *_, last = HostTrainer().train(IN_BLOCKS, make, steps=20, resume=resumed)
    assert last.snapshot().facts["anew"] == 1
    assert last.snapshot().facts["episode"] == [1]
    assert "could not repeat episode 0" in last.warnings[0]


class Short(gymnasium.Env):
    """Episodes of three steps; the fifth observation may be NaN."""

    observation_space = gymnasium.spaces.Box(0, 20, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    count, wrong = 0, False

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time, self.count = self.time + 1, self.count + 1
        bad = self.wrong and self.count == 5
        observation = np.float32([np.nan if bad else self.time])
        return observation, 1.0, self.time == 3, False, {}


def vector(wrong=None):
    """Returns the function that makes them, environment `wrong` with NaN."""

    def one(index):
        env = Short()
        env.wrong = index == wrong
        return env

    return lambda seed, count: gymnasium.vector.SyncVectorEnv(
        [lambda i=i: one(i) for i in range(count)]
    )


def test_environments_stepped_together_are_told_apart():
    trainer = HostTrainer(num_envs=2, vectorization="sync")
    with pytest.raises(EnvironmentFault, match="environment 1, episode 1, step 2: observation"):
        list(trainer.train(IN_BLOCKS, vector(wrong=1), steps=40))


@pytest.mark.slow
@pytest.mark.parametrize("steps", range(20, 28, 2))  # wherever an episode is
def test_environments_stepped_together_go_on_with_new_episodes(steps):
    trainer = HostTrainer(num_envs=2, vectorization="sync")
    *_, half = trainer.train(IN_BLOCKS, vector(), steps=steps)
    saved = half.snapshot()
    saved = Snapshot(trees.flatten(saved.arrays), saved.facts)
    *_, last = trainer.train(IN_BLOCKS, vector(), steps=60, resume=saved)
    assert last.steps == 60
    assert last.snapshot().facts["anew"] in (0, 2)
