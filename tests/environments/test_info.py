"""What environments say beside their timesteps, from each kind of them to the log."""

import csv
import dataclasses
import math

import dm_env
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs
from plain import IN_BLOCKS

from agents_zoo import ppo
from rlws import environments
from rlws.commands import compare, evaluate, plot
from rlws.environments import JaxEnvironment, WithInfo, jax_environment, resolve
from rlws.environments.info import Kept, parsed
from rlws.environments.wrappers import Repeat, wrap
from rlws.networks import MLP
from rlws.runs import launch
from rlws.runs.check import check_experiment
from rlws.runs.experiment import Evaluation, Experiment
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer, evaluation
from rlws.types import EnvironmentSpec

STEPS = 3  # of an episode
INFO = ("pace=sum", "pace_mean=mean", "distance", "peak=max", "goal=max")
# Of an episode in which all steps say it: pace is 1, 2, 3, distance 2, 1, 0, and so on.
EXPECTED = [6.0, 2.0, 0.0, 2.0, 1.0]
AGENT = ppo.Config(backbone=MLP((8,)), unroll_length=10, minibatches=2, epochs=2)
SPEC = EnvironmentSpec(
    observations=specs.Array((2,), np.float32),
    actions=specs.DiscreteArray(2),
    max_episode_steps=STEPS,
)


def said(time):
    """What is said after so many steps of an episode."""
    peak = 2 - abs(time - 1.5) * 2 + 1  # 2, 2, 0
    told = {"pace": time, "pace_mean": time, "distance": STEPS - time, "peak": peak}
    return {**told, "goal": time == STEPS, "place": np.ones(2), "seed": 7}


class Corridor(JaxEnvironment):
    """Written in JAX."""

    def spec(self):
        return SPEC

    def reset(self, key):
        return jnp.int32(0), jax_environment.first(jnp.zeros(2))

    def step(self, state, action):
        return self.step_with_info(state, action)[:2]

    def step_with_info(self, state, action):
        time = state + 1
        ended = time == STEPS
        return time, jax_environment.following(jnp.ones(2) * time, 1.0, ended, False), said(time)


class Gym(gymnasium.Env):
    """One of gymnasium's."""

    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    spec = None

    def reset(self, *, seed=None, options=None):
        self._time = 0
        return np.zeros(2, np.float32), {"pace": 1000.0}

    def step(self, action):
        self._time += 1
        ended = self._time == STEPS
        return np.full(2, self._time, np.float32), 1.0, ended, False, said(self._time)


class Dm(dm_env.Environment):
    """One of dm_env's, by convention: `info` says it of the last step."""

    def reset(self):
        self._time = 0
        return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
        self._time += 1
        end = dm_env.termination if self._time == STEPS else dm_env.transition
        return end(1.0, np.full(2, self._time, np.float32))

    def info(self):
        return said(self._time)

    def observation_spec(self):
        return SPEC.observations

    def action_spec(self):
        return SPEC.actions


def gym(seed, index):
    return Gym()


def dm(seed, index):
    return Dm()


def several(seed, num_envs):
    return gymnasium.vector.SyncVectorEnv(num_envs * [Gym])


KINDS = {"jax": Corridor(), "gym": gym, "dm": dm}


def last(trainer, environment, info=INFO, steps=42, **control):
    *_, report = trainer.train(IN_BLOCKS, WithInfo(environment, info), steps=steps, **control)
    return report


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_rules_by_hand(xp):
    rules = ("last", "sum", "mean", "max")
    kept = Kept.nothing((4,), xp)
    assert np.isnan(kept.numbers(rules, xp)).all()
    for x in (2.0, -5.0, math.nan, 1.0):
        kept = kept.add(rules, xp.full(4, x, xp.float32), xp)
    np.testing.assert_allclose(kept.numbers(rules, xp), [1.0, -2.0, -2 / 3, 2.0], rtol=1e-6)
    kept = kept.add(rules, xp.full(4, xp.nan, xp.float32), xp)
    np.testing.assert_allclose(kept.numbers(rules, xp), [1.0, -2.0, -2 / 3, 2.0], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_host_reports_what_is_kept_of_each_episode(kind):
    report = last(HostTrainer(num_envs=2), KINDS[kind])
    assert len(report.returns) == 14
    np.testing.assert_allclose(np.transpose(report.info), 14 * [EXPECTED])


def test_device_reports_the_same():
    report = last(DeviceTrainer(num_envs=2), Corridor())
    np.testing.assert_allclose(np.transpose(report.info), 14 * [EXPECTED])


@pytest.mark.slow
def test_environments_stepped_together_report_the_same():
    report = last(HostTrainer(num_envs=2, vectorization="sync"), several)
    np.testing.assert_allclose(np.transpose(report.info), 14 * [EXPECTED])


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_returns_it_after_returns_and_lengths(kind):
    agent = IN_BLOCKS.make(SPEC)
    params = jax.jit(agent.learner.init)(np.zeros(2, np.uint32)).params
    evaluate = evaluation.evaluator(agent, WithInfo(KINDS[kind], INFO), 5, num_envs=2)
    returns, lengths, *info = evaluate(params, 0)
    assert [*returns, *lengths] == 10 * [3]
    np.testing.assert_allclose(np.transpose(info), 5 * [EXPECTED])


@pytest.mark.parametrize("kind", ["jax", "gym"])
def test_repeated_steps_are_all_heard(kind):
    def make(seed, index):
        return wrap(resolve.host(KINDS[kind], seed, index), Repeat(2))

    source = wrap(Corridor(), Repeat(2)) if kind == "jax" else make
    environment = resolve.host(WithInfo(source, INFO), 0, 0)
    for _ in range(2):
        environment.reset()
        assert not environment.step(0).last()
        assert environment.step(0).last()
        np.testing.assert_allclose(environment.episode_info(), EXPECTED)


@pytest.mark.parametrize(
    "trainer", [HostTrainer(num_envs=2), DeviceTrainer(num_envs=2)], ids=["host", "device"]
)
def test_a_resumed_run_keeps_what_was_said_before(trainer):
    source = WithInfo(Corridor(), INFO)
    control = dict(steps=42, report_period=7)  # reports lie within episodes
    whole = list(trainer.train(IN_BLOCKS, source, **control))
    for report in trainer.train(IN_BLOCKS, source, **control):
        if report.steps >= 20:
            snapshot = report.snapshot()
            break
    from rlws.numerics import trees

    snapshot = snapshot._replace(arrays=trees.flatten(snapshot.arrays))
    resumed = list(trainer.train(IN_BLOCKS, source, resume=snapshot, **control))
    for ours, theirs in zip(resumed, whole[-len(resumed) :], strict=True):
        np.testing.assert_array_equal(ours.info, theirs.info)


@pytest.mark.parametrize(
    "trainer", [HostTrainer(num_envs=2), DeviceTrainer(num_envs=2)], ids=["host", "device"]
)
def test_it_changes_nothing_about_a_run(trainer):
    *_, without = trainer.train(IN_BLOCKS, Corridor(), steps=42)
    report = last(trainer, Corridor())
    assert (without.metrics, [*without.info]) == (report.metrics, [])
    np.testing.assert_array_equal(without.returns, report.returns)


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_names_are_an_error_that_lists_what_there_is(kind):
    with pytest.raises(SettingError, match="got 'speed'; it says distance, goal, pace, pace_mean"):
        check_experiment(
            dataclasses.replace(
                EXPERIMENT, environment=KINDS[kind], info=("speed",), trainer=HostTrainer()
            )
        )


def test_together_unknown_names_are_found_at_the_first_end():
    with pytest.raises(SettingError, match="got 'place'; it says distance, goal, pace, pace_mean"):
        last(HostTrainer(num_envs=2, vectorization="sync"), several, ("place",))


class Numbered(Dm):
    """Says something whose name is none, too."""

    def info(self):
        return {1: 2.0, **super().info()}


def test_what_has_no_name_is_not_asked_for():
    make = lambda seed, index: Numbered()
    made = dataclasses.replace(EXPERIMENT, environment=make, trainer=HostTrainer())
    check_experiment(dataclasses.replace(made, info=("goal",)))
    with pytest.raises(SettingError, match="got 'speed'; it says distance, goal, pace"):
        check_experiment(dataclasses.replace(made, info=("speed",)))


def test_of_an_environment_that_says_nothing():
    with pytest.raises(SettingError, match="got 'success'; it says none"):
        environments.resolve.host(WithInfo("jax:Catch", ("success",)), 0, 0)


@pytest.mark.parametrize("info", ["a=least", "a a", "return", "=sum"])
def test_wrong_choices_are_refused(info):
    with pytest.raises(SettingError, match="info"):
        parsed(tuple(info.split(" ")))


EXPERIMENT = Experiment(
    name="corridor",
    environment=Corridor(),
    agent=AGENT,
    trainer=DeviceTrainer(num_envs=2),
    steps=42,
    info=("pace=sum", "goal"),
    evaluation=Evaluation(episodes=5),
    quiet=True,
)


@pytest.mark.slow
def test_columns_of_a_run_and_the_verbs_that_read_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        made = dataclasses.replace(EXPERIMENT, seed=seed, directory=f"run{seed}")
        summary = launch.run(made)
        assert [summary["evaluation_pace"], summary["evaluation_goal"]] == [6, 1]
    with open("run0/metrics.csv", newline="") as file:
        *_, row = csv.DictReader(file)
    names = "episode_pace", "episode_goal", "evaluation_pace", "evaluation_goal"
    assert [float(row[name]) for name in names] == [6, 1, 6, 1]

    def verb(module, *words):
        import argparse

        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        module.run(parser.parse_args([*words]))
        return capsys.readouterr().out

    assert "pace 6 at 42 steps" in verb(plot, "run0", "--metric", "pace")
    assert "6" in verb(compare, "run0", "--against", "run1", "--metric", "pace")
    assert "pace 6, goal 1" in verb(evaluate, "run0", "--episodes", "3")
