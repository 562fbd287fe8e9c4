"""A run that comes to NaN leaves the state before, the batch and the key; and only that."""

import contextlib
import csv
import dataclasses
import json
import math
import pathlib
import re
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import a2c, dqn, ppo
from rlws import environments
from rlws.learner import Learner
from rlws.networks import MLP
from rlws.numerics import checkpoint, trees
from rlws.runs import capsule, launch
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Checkpoints, Evaluation, Experiment
from rlws.runs.health import NonFiniteError
from rlws.settings import SettingError
from rlws.tracking.interrupts import Interrupted
from rlws.trainers import DeviceTrainer, HostTrainer, Member, Progress, Snapshot, initial

SMALL = MLP((4,))


class Broken(Learner):
    """What the loss is said to be, and nothing else, is NaN after so many updates."""

    good: int = dataclasses.field(kw_only=True)

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        healthy = jnp.where(state.updates < self.good, 1.0, -1.0)
        return after, metrics | {"loss": metrics["loss"] + jnp.sqrt(healthy) - 1.0}


class BrokenA2C(Broken, a2c.A2C):
    pass


class BrokenPPO(Broken, ppo.PPO):
    pass


class BrokenDQN(Broken, dqn.DQN):
    pass


def broken(kind, agent, good):
    learner = agent.learner
    fields = learner.network, learner.optimizer, learner.config
    return dataclasses.replace(agent, learner=kind(*fields, good=good))


class A2C(a2c.Config):
    good: int = 3

    def make(self, spec):
        return broken(BrokenA2C, super().make(spec), self.good)


class PPO(ppo.Config):
    good: int = 3

    def make(self, spec):
        return broken(BrokenPPO, super().make(spec), self.good)


class DQN(dqn.Config):
    good: int = 5

    def make(self, spec):
        return broken(BrokenDQN, super().make(spec), self.good)


states = {}  # of the learner, by updates


class Watched(Experiment):
    """An experiment whose states are kept in passing."""

    def train_all(self, runs, **control):
        for reports in super().train_all(runs, **control):
            if "max_updates" not in control:
                arrays = next(iter(reports.values())).snapshot().arrays
                state = arrays["run"].state if "run" in arrays else arrays["state"]
                learner = jax.device_get(state.learner)
                states[int(np.max(learner.updates))] = learner
            yield reports


UNROLLS = PPO(
    backbone=SMALL,
    unroll_length=8,
    minibatches=2,
    epochs=2,
    normalise_observations=False,
    scale_rewards=False,
)
ONE = A2C(backbone=SMALL, unroll_length=8)
REPLAY = DQN(backbone=SMALL, capacity=100, min_size=20, batch_size=4, target_period=3)
TURNS = dataclasses.replace(REPLAY, period=4, updates=4, prioritised=True)
DEVICE, HOST = DeviceTrainer(num_envs=2), HostTrainer(num_envs=2)
# Agent, trainer, updates that are fine, how many are taken in a row.
CASES = {
    "a2c on the device": (ONE, DEVICE, 3, 1),
    "ppo on the device": (UNROLLS, DEVICE, 3, 1),
    "a2c, the very first": (ONE, HOST, 0, 1),
    "a2c with overlap": (ONE, HostTrainer(num_envs=2, overlap=True), 3, 1),
    "dqn on the host": (REPLAY, HostTrainer(), 5, 1),
    "dqn, first of four, on the device": (TURNS, DEVICE, 8, 4),
    "dqn, last of four, on the device": (TURNS, DEVICE, 7, 4),
    "dqn, last of four, on the host": (TURNS, HOST, 7, 4),
}
STEPS = 120


def experiment(agent, trainer, folder, **changes):
    made = Watched(
        name="nan",
        environment="jax:Catch",
        agent=agent,
        trainer=trainer,
        steps=STEPS,
        evaluation=Evaluation(episodes=2),
        directory=str(folder),
        quiet=True,
    )
    return dataclasses.replace(made, **changes)


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def equal(one, other, **tolerance):
    one, other = trees.flatten(one), trees.flatten(other)
    assert one.keys() == other.keys()
    for name, x in one.items():
        np.testing.assert_allclose(x, other[name], err_msg=name, **tolerance)


class Case(NamedTuple):
    folder: pathlib.Path
    error: str
    states: dict
    good: int
    count: int
    update: capsule.Update
    facts: dict
    after: tuple  # of the update taken again: the state of the learner, and metrics


EXACT = "a2c, the very first"
ALIKE = "ppo on the device", "dqn, first of four, on the device"
MARKS = {EXACT: [pytest.mark.slow, pytest.mark.exact], **dict.fromkeys(ALIKE, pytest.mark.thorough)}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in CASES],
)
def case(request, tmp_path_factory):
    """A run that came to NaN, what it said, and the states that were seen."""
    agent, trainer, good, count = CASES[request.param]
    folder = tmp_path_factory.mktemp("nan") / "run"
    # In some, the newest checkpoint is not the one from the beginning.
    kept = Checkpoints(period=16 if good != 7 else 0)
    made = experiment(dataclasses.replace(agent, good=good), trainer, folder, checkpoint=kept)
    states.clear()
    with pytest.raises(NonFiniteError) as error:
        launch.run(made)
    update, facts = capsule.read(folder / "capsule")
    # The very program that found what is not finite; eagerly, a hundred would be compiled.
    after = jax.jit(update.agent.learner.learn)(*update[1:])
    return Case(folder, str(error.value), dict(states), good, count, update, facts, after)


@pytest.mark.slow
def test_the_error_says_what_where_and_what_to_do(case):
    assert case.error.startswith(
        f"update {case.good // case.count * case.count + case.count:,}, at"
    )
    assert "came to NaN or infinity: metrics/loss: is nan; 1 of 1 are not finite" in case.error
    assert case.error.endswith(f"rlws replay {case.folder / 'capsule'} --eager")
    summary = json.loads((case.folder / "summary.json").read_text())
    assert summary["ended_by"] == f"NonFiniteError: {case.error}"
    assert math.isnan(float(rows(case.folder)[-1]["loss"]))


def test_the_state_is_exactly_that_before(case):
    assert int(case.update.learner.updates) == case.good
    assert case.facts["updates"] == case.count
    if case.good % case.count == 0:  # of those in a row, only that before the first is seen
        equal(case.update.learner, case.states[case.good], rtol=0, atol=0)


def test_batch_and_key_are_those_of_the_update(case):
    # What was planted spoils the loss only, so the state after it can be compared.
    learner, _ = case.after
    if (case.good + 1) % case.count == 0:
        equal(learner, case.states[case.good + 1], rtol=1e-4, atol=1e-6)
    assert int(learner.updates) == case.good + 1


def test_the_update_taken_again_gives_the_same_metrics_that_are_not_finite(case):
    _, metrics = case.after
    wrong = {name for name, x in metrics.items() if not np.isfinite(x).all()}
    last = rows(case.folder)[-1]
    assert wrong == {"loss"} == {name for name in last if last[name] == "nan"}
    assert case.facts["not_finite"] == ["metrics/loss: is nan; 1 of 1 are not finite"]
    assert case.facts["not_finite"] == list(capsule.not_finite(case.update))


def test_no_checkpoint_holds_what_is_not_finite(case):
    check_finite(case.folder)


def check_finite(folder):
    found = checkpoint.names(folder / "checkpoints")
    assert found
    for name in found:
        arrays = checkpoint.read(folder / "checkpoints" / name).arrays
        assert all(np.isfinite(x).all() for x in arrays.values() if x.dtype.kind == "f")


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer", [DEVICE, pytest.param(HOST, marks=pytest.mark.thorough)], ids=["device", "host"]
)
def test_nan_in_the_last_update_of_a_run_is_no_other(trainer, tmp_path):
    # The budget is spent by the very block that the update learns from.
    made = experiment(dataclasses.replace(ONE, good=2), trainer, tmp_path, steps=44)
    with pytest.raises(NonFiniteError, match=r"update 3, at 44 steps, .*metrics/loss: is nan"):
        launch.run(made)
    update, _ = capsule.read(tmp_path / "capsule")
    assert int(update.learner.updates) == 2
    check_finite(tmp_path)


@pytest.mark.slow
def test_a_run_that_came_to_nan_says_the_same_each_time_also_after_a_signal(tmp_path, monkeypatch):
    def interrupted(*args):
        raise Interrupted(signal.SIGTERM)

    made = experiment(ONE, HOST, tmp_path, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(capsule, "keep", interrupted)
        with pytest.raises(Interrupted):
            launch.run(made)
    check_finite(tmp_path)
    errors = []
    for _ in range(2):
        with pytest.raises(NonFiniteError) as error:
            launch.run(made)
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert int(capsule.read(tmp_path / "capsule")[0].learner.updates) == 3


def kept(folder):
    """Returns what is said of a run in a folder that came to NaN in update 2."""
    made, none = experiment(ONE, HOST, folder), np.zeros(0)
    report = Progress(16, 0, 2, none, none, {}, None, None, False, None, halted=True)
    with contextlib.closing(Checkpointer(folder, made.checkpoint, {})) as checkpointer:
        checkpointer.forget()
        yield checkpointer
        yield str(capsule.keep(made, [Member(0, {})], checkpointer, report))


def test_without_a_checkpoint_there_is_no_capsule_and_that_is_said(tmp_path):
    _, said = kept(tmp_path)
    assert re.match(r"update 2, .*there is no checkpoint to work it out again from$", said)
    assert not (tmp_path / "capsule").exists()
    with pytest.raises(SettingError, match="must be the capsule of a run, got none"):
        capsule.read(tmp_path / "capsule")


@pytest.mark.slow
def test_a_capsule_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch):
    save = checkpoint.save

    def full(folder, *args):
        if folder.name == "capsule":
            raise checkpoint.StorageError(28, "No space left on device")
        return save(folder, *args)

    monkeypatch.setattr(checkpoint, "save", full)
    made = experiment(dataclasses.replace(ONE, good=1), HOST, tmp_path)
    with pytest.raises(NonFiniteError, match=r"^update 2, .*; no capsule: .*No space left"):
        launch.run(made)


def test_checkpoints_that_are_damaged_meanwhile_hide_nothing(tmp_path):
    steps = kept(tmp_path)
    checkpointer = next(steps)
    checkpointer.save(0, Snapshot({"x": np.zeros(3)}, {}), {})
    (checkpointer.folder / f"{0:012d}" / "manifest.json").unlink()
    assert re.match(r"update 2, .*; no capsule: no checkpoint in .* is whole", next(steps))


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [DeviceTrainer(num_envs=2, num_seeds=2), pytest.param(HOST, marks=pytest.mark.thorough)],
    ids=["device", "host"],
)
def test_a_member_of_a_sweep_ends_alone(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("rlws.settings.FLOAT", 1e39)
    agent = dataclasses.replace(ONE, good=100)
    made = experiment(agent, trainer, tmp_path, sweep=("agent.learning_rate=1e-3,1e38",))
    launch.run(made)
    with open(tmp_path / "members.csv", newline="") as file:
        members = list(csv.DictReader(file))
    for member in members:
        folder = tmp_path / member["member"]
        summary = json.loads((folder / "summary.json").read_text())
        bad = member["learning_rate"] == "1e+38"
        if not bad:
            assert "ended_by" not in summary
            assert summary["steps"] >= STEPS
            assert member["evaluation_return_mean"]
            continue
        assert summary["ended_by"].startswith(f"update {summary['updates']:,}, at ")
        assert summary["ended_by"].endswith("came to NaN or infinity")
        assert summary["steps"] < STEPS
        assert not member["evaluation_return_mean"]
    assert len(members) == 2 * getattr(trainer, "num_seeds", 1)


def changed(agent=ONE, params=None, batch=None):
    """Returns an update of a healthy agent with something replaced."""
    spec = environments.make("jax:Catch").spec()
    made = agent.make(spec)
    state = initial.init(made, spec, 0, 2)
    _, sampled = made.adder.sample(state.adder, initial.seed_key())
    learner = state.learner
    if params is not None:
        learner = learner._replace(params=jax.tree.map(params, learner.params))
    if batch is not None:
        sampled = sampled._replace(reward=batch(sampled.reward))
    return capsule.Update(made, learner, sampled, initial.seed_key())


@pytest.mark.slow
def test_not_finite_names_the_first_in_the_order_of_the_update():
    spoil = lambda x: x.at[(1,) * x.ndim].set(jnp.inf)
    (first, *_) = capsule.not_finite(changed(batch=spoil))
    assert first == "batch/reward: [1, 1] is inf; 1 of 16 are not finite"
    (first, *_) = capsule.not_finite(changed(params=lambda x: x * jnp.nan))
    assert first.startswith("parameters/")
    assert not list(capsule.not_finite(changed()))
