"""Sweeps: which runs there are, and what they leave."""

import csv
import dataclasses
import json

import pytest

from agents_zoo import a2c
from rlws import flags
from rlws.experiment import Evaluation, Experiment
from rlws.networks import GRU, MLP
from rlws.settings import SettingError
from rlws.sweep import members, parse_value
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
        change(sweep=(sweep,)).check()


TRAINERS = [DeviceTrainer(num_envs=2, num_seeds=2), HostTrainer(num_envs=2)]


@pytest.mark.parametrize("trainer", TRAINERS, ids=["device", "host"])
def test_a_sweep_leaves_a_folder_for_each_member_and_one_table(trainer, tmp_path):
    directory = tmp_path / "sweep"
    experiment = change(
        trainer=trainer, sweep=("agent.learning_rate=1e-3,1e-2",), directory=str(directory)
    )
    summary = experiment.run()
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
        assert (folder / "metrics.csv").read_text().count("\n") > 10
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
        flags.parse(EXPERIMENT, ["--sweep"]).check()
