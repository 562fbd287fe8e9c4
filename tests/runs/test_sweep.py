"""Sweeps: which runs there are, and what they leave."""

import argparse
import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

import rlws
from agents_zoo import a2c, ppo
from rlws.commands import flags, plot
from rlws.networks import GRU, MLP
from rlws.runs import launch
from rlws.runs.check import check_experiment
from rlws.runs.experiment import Evaluation, Experiment
from rlws.runs.folders import experiment_of
from rlws.runs.sweep import label, members, parse, parse_value, variants
from rlws.runs.table import Entry, tabled
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


def test_a_setting_is_swept_once():
    with pytest.raises(SettingError, match="sweep must have seed once, got 'seed=0,4 seed=8'"):
        check_experiment(change(sweep=("seed=0,4", "seed=8")))


def test_ranges_may_stand_among_values():
    assert [x for _, x in parse("seed=0..2,5,7..8", EXPERIMENT)] == [0, 1, 2, 5, 7, 8]


def test_names_of_folders_are_short_enough_for_a_disk():
    long = "x".join(["8"] * 150)
    sweep = (f"agent.backbone.hidden-sizes={long},8", "agent.learning-rate=1e-3,1e-2")
    runs = members(change(sweep=sweep))
    labels = [label(i, runs) for i in range(len(runs))]
    assert len(set(labels)) == len(runs)
    assert max(map(len, labels)) <= 200


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("learning_rate=1,2", "Experiment has no setting 'learning_rate'"),
        ("seed", "must be of the form setting=value,value"),
        ("seed=3..1", r"seed: .* must be low..high, got '3..1'; write 1..3"),
        ("seed=0-4", r"seed: .* must be low..high, got '0-4'; write 0..4"),
        ("seed=0,0", "sweep must have 0 once, got 'seed=0,0'"),
        ("seed=0..1", "sweep must have seed=1 once, got 'seed=0..1 with 2 seeds each'"),
        ("seed=0..99999999999", "a sweep must be of 10,000 runs at most, got 100,000,000,000"),
        ("agent.learning_rate=1e-3,0.001", "sweep must have 0.001 once"),
        ("agent.learnin-rate=1,2", "no setting 'learnin_rate'; did you mean learning_rate"),
        ("agent=pppo", "agent must be a module with a Config, such as ppo, got 'pppo'"),
        ("agent.backbone=mlp,lstn", "agent.backbone: unknown value 'lstn'; did you mean 'lstm'"),
        ("agent.learning_rate", "must be of the form"),
        ("agent.lr=1,2", "has no setting 'lr'"),
        ("agent.learning_rate=0.1,-1", "learning_rate must be greater than 0, got -1.0"),
        ("agent.unroll_length=4,0.5", "must be a whole number, got 0.5"),
    ],
)
def test_wrong_sweeps_are_named_before_anything_runs(sweep, message):
    with pytest.raises(SettingError, match=message):
        check_experiment(change(sweep=(sweep,)))


TRAINERS = [DeviceTrainer(num_envs=2, num_seeds=2), HostTrainer(num_envs=2)]


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
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
    with pytest.raises(SettingError, match="must be of the form setting=value"):
        check_experiment(flags.parse(EXPERIMENT, ["--sweep"]))


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


def test_a_sweep_over_anything_is_of_runs_by_themselves():
    texts = (
        "environment=gym:FrozenLake-v1,is_slippery=false,jax:Catch",
        "seed=3..4",
        "agent=a2c,ppo",
    )
    sweep = (*texts, "agent.backbone.hidden-sizes=8,16x32")
    found = variants(change(trainer=HostTrainer(), sweep=sweep))
    assert len(found) == 16
    first, last = found[0], found[-1]
    assert first.label == (
        "agent=a2c_environment=gym:FrozenLake-v1,is_slippery=false_seed=3_backbone.hidden_sizes=8"
    )
    assert first.experiment.environment == "gym:FrozenLake-v1,is_slippery=false"
    assert (type(first.experiment.agent), first.experiment.seed) == (a2c.Config, 3)
    assert (last.experiment.environment, last.experiment.seed) == ("jax:Catch", 4)
    assert last.experiment.agent.backbone == MLP((16, 32))
    assert type(last.experiment.agent) is ppo.Config
    assert not last.experiment.sweep


def test_a_device_trains_values_of_an_agents_settings_together():
    sweep = ("agent.backbone=mlp,gru", "seed=0,2", "agent.discount=0.9,0.99")
    found = variants(change(sweep=sweep))
    assert [one.experiment.sweep for one in found] == 2 * [(sweep[0], sweep[2])]
    assert not variants(change(sweep=sweep[2:]))
    assert len(members(found[0].experiment)) == 8


def test_sweeps_from_a_file(tmp_path):
    path = tmp_path / "grid.txt"
    path.write_text("# two\nagent.discount=0.9,0.99  # of gamma\n\nseed=0..1\n")
    found = flags.parse(EXPERIMENT, ["--sweep", str(path)])
    assert found.sweep == ("agent.discount=0.9,0.99", "seed=0..1")


@pytest.mark.slow
def test_runs_by_themselves_leave_one_table_and_go_on_where_they_were(tmp_path, capsys):
    directory = tmp_path / "sweep"
    trainer = DeviceTrainer(num_envs=2)
    sweep = ("environment=jax:Catch,jax:Catch+limit=4", "agent.discount=0.9,0.99", "seed=0..1")
    made = change(trainer=trainer, steps=40, sweep=sweep, directory=str(directory))
    summary = launch.run(made)
    with open(directory / "members.csv") as file:
        table = list(csv.DictReader(file))
    assert summary["members"] == len(table) == 8
    for line in table:
        config = json.loads((directory / line["member"] / "config.json").read_text())
        assert (config["environment"], str(config["seed"])) == (line["environment"], line["seed"])
        assert str(config["agent"]["discount"]) == line["discount"]
    scores = [float(x["evaluation_return_mean"]) for x in table if x["discount"] == "0.9"]
    told = summary["environment=jax:Catch discount=0.9"]
    assert told.startswith(f"mean {np.mean(scores[:2]):.4g} [") or scores[0] == scores[1]
    assert ", n 2, " in told
    # One of them is lost: only that is run again.
    lost = directory / table[-1]["member"]
    shutil.rmtree(lost.parent)
    again = launch.run(dataclasses.replace(made, resume=True))
    assert {k: again[k] for k in ("members", "steps")} == {
        k: summary[k] for k in ("members", "steps")
    }
    assert (lost / "summary.json").exists()
    capsys.readouterr()
    plot.run(
        argparse.Namespace(
            directories=[str(directory)],
            over="discount",
            metric="evaluation_return_mean",
            output=str(tmp_path / "over.png"),
        )
    )
    out = capsys.readouterr().out
    assert "jax:Catch, discount=0.9: evaluation_return_mean" in out
    assert (tmp_path / "over.png").stat().st_size


def test_info_of_several_flags_is_kept_together():
    args = ["--info", "success", "distance=sum", "--quiet", "--info=fuel", "--info", "odd"]
    found = flags.parse(EXPERIMENT, args)
    assert found.info == ("success", "distance=sum", "fuel", "odd")
    assert flags.parse(EXPERIMENT, ["--sweep", "seed=0,4", "agent.discount=0.9,0.99"]).sweep == (
        "seed=0,4",
        "agent.discount=0.9,0.99",
    )


def test_what_environments_said_in_evaluations_is_in_the_table_of_members(tmp_path):
    summaries = [{"evaluation_success": float(i), "evaluation_return_mean": 1.0} for i in range(2)]
    entries = [Entry(str(i), {"seed": i}, found) for i, found in enumerate(summaries)]
    tabled(entries, tmp_path)
    with open(tmp_path / "members.csv") as file:
        assert [row["evaluation_success"] for row in csv.DictReader(file)] == ["0.0", "1.0"]
