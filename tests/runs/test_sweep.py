"""Sweeps: which runs there are, and what they leave."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import rlws
from agents_zoo import a2c
from rlws.commands import flags
from rlws.networks import GRU, MLP
from rlws.runs import launch
from rlws.runs.experiment import Evaluation, Experiment
from rlws.runs.folders import experiment_of
from rlws.runs.sweep import members, parse_value
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer

EXPERIMENT = Experiment(
    name="toy",
    environment="jax:Catch",
    agent=a2c.Config(backbone=MLP((8,)), unroll_length=4),
    trainer=DeviceTrainer(num_envs=2, num_seeds=2),
    steps=300,
    seed=5,
    evaluation=Evaluation(episodes=4),
    quiet=True,
)


def change(**fields):
    return dataclasses.replace(EXPERIMENT, **fields)


def test_members_are_all_combinations_for_each_seed():
    found = members(change(sweep=("agent.learning-rate=1e-3,1e-2", "agent.unroll-length=4,8")))
    assert len(found) == 8
    assert found[0] == (5, {"learning_rate": 1e-3, "unroll_length": 4})
    assert found[-1] == (6, {"learning_rate": 1e-2, "unroll_length": 8})


@pytest.mark.parametrize(
    ("text", "now", "value"),
    [("1", 0.5, 1.0), ("3", 2, 3), ("true", False, True), ("tanh", "relu", "tanh"), ("5", None, 5)],
)
def test_values_have_the_type_of_the_setting(text, now, value):
    found = parse_value(text, now)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("learning_rate=1,2", "must be of the form agent.setting=value,value"),
        ("agent.learning_rate", "must be of the form"),
        ("agent.lr=1,2", "has no setting 'lr'"),
        ("agent.learning_rate=0.1,-1", "learning_rate must be greater than 0, got -1.0"),
        ("agent.unroll_length=4,0.5", "must be a whole number, got 0.5"),
    ],
)
def test_wrong_sweeps_are_named_before_anything_runs(sweep, message):
    with pytest.raises(SettingError, match=message):
        launch.check(change(sweep=(sweep,)))


TRAINERS = [DeviceTrainer(num_envs=2, num_seeds=2), HostTrainer(num_envs=2)]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS, ids=["device", "host"])
def test_a_sweep_leaves_a_folder_for_each_member_and_one_table(trainer, tmp_path):
    directory = tmp_path / "sweep"
    experiment = change(
        trainer=trainer,
        sweep=("agent.learning_rate=1e-3,1e-2",),
        track=("jsonl",),
        directory=str(directory),
    )
    summary = launch.run(experiment)
    with open(directory / "members.csv") as file:
        table = list(csv.DictReader(file))
    seeds = 2 if isinstance(trainer, DeviceTrainer) else 1
    assert summary["members"] == len(table) == 2 * seeds
    for line in table:
        folder = directory / line["member"]
        config = json.loads((folder / "config.json").read_text())
        assert str(config["agent"]["learning_rate"]) == line["learning_rate"]
        assert str(config["seed"]) == line["seed"]
        assert config["sweep"] == []
        found = json.loads((folder / "summary.json").read_text())
        assert str(found["evaluation_return_mean"]) == line["evaluation_return_mean"]
        for name in ("metrics.csv", "metrics.jsonl"):
            assert (folder / name).read_text().count("\n") > 10
        # From now on it is a run by itself.
        (checkpoint,) = (folder / "checkpoints").iterdir()
        assert int(checkpoint.name) == int(line["steps"])
        assert rlws.load(folder)(np.zeros((10, 5), np.float32)) in range(3)
    alone = dataclasses.replace(
        experiment_of(folder), directory=str(folder), resume=True, steps=400
    )
    assert launch.run(alone)["steps"] >= 400
    assert (directory / "summary.json").exists()
    assert (directory / "plots").is_dir()


def test_flags_sweep_and_backbone():
    args = ["--sweep", "agent.discount=0.9,0.99", "--sweep=agent.learning-rate=1e-3,1e-2"]
    args += ["--agent.backbone", "gru", "--agent.backbone.size", "4"]
    found = flags.parse(EXPERIMENT, args)
    assert len(found.sweep) == 2
    assert found.agent.backbone == GRU(size=4)
    with pytest.raises(SettingError, match=r"--agent\.backbone: unknown value 'gur'; did you mean"):
        flags.parse(EXPERIMENT, ["--agent.backbone", "gur"])
    with pytest.raises(SettingError, match=r"must be of the form agent\.setting"):
        launch.check(flags.parse(EXPERIMENT, ["--sweep"]))


@pytest.mark.slow
def test_a_finished_sweep_does_not_go_on_but_its_members_may(tmp_path):
    sweep = change(steps=20, directory=str(tmp_path / "sweep"), resume=True)
    first = launch.run(sweep)
    assert launch.run(sweep) == first  # nothing to do
    with pytest.raises(SettingError, match=r"steps: 20, 40.*fork of one of the runs in it"):
        launch.run(dataclasses.replace(sweep, steps=40))


def test_flags_track():
    found = flags.parse(EXPERIMENT, ["--track", "jsonl", "--track=tensorboard"])
    assert found.track == ("jsonl", "tensorboard")
    found = flags.parse(EXPERIMENT, ["--track=jsonl", "--on-track-failure", "stop"])
    assert [sink.on_failure for sink in found.sinks()] == ["stop"]


def test_an_unknown_sink_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(SettingError, match="tracking sink: unknown value 'jsno'; did you mean"):
        launch.run(change(track=("jsno",), directory=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
