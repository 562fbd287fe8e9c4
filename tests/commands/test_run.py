"""`rlws run`: an experiment by name, by module or by file."""

import json
import re
import sys

import pytest

from rlws.runs import launch

QUICK = ("--steps", "0", "--evaluation.episodes", "2", "--seed", "7", "--quiet")
SMALL = ("--agent.backbone.hidden-sizes", "4")
FILE = """
from agents_zoo import reinforce
from rlws.runs.experiment import Experiment
from rlws.networks import MLP
from rlws.trainers import DeviceTrainer

experiment = Experiment(
    name="mine",
    environment="jax:Catch",
    agent=reinforce.Config(backbone=MLP((3,))),
    trainer=DeviceTrainer(),
)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["catch_reinforce", "experiments.catch_reinforce", "my_experiment.py", "./my_experiment.py"],
)
def test_run_takes_names_modules_and_files(name, here, rlws, monkeypatch):
    asked = []
    monkeypatch.setattr(launch, "run", asked.append)
    (here / "my_experiment.py").write_text(FILE)
    assert rlws("run", name, *QUICK, *SMALL).status == 0
    (experiment,) = asked
    assert experiment.name == ("mine" if "my" in name else "catch_reinforce")
    assert (experiment.seed, experiment.steps) == (7, 0)
    assert experiment.agent.backbone.hidden_sizes == (4,)


@pytest.mark.slow
def test_run_runs_and_prints_what_came_of_it(here, rlws):
    found = rlws("run", "catch_reinforce", *QUICK, *SMALL, "--directory", "run")
    assert found.status == 0
    assert "evaluation_return_mean" in found.out
    config = json.loads((here / "run" / "config.json").read_text())
    assert config["name"] == "catch_reinforce"
    assert (config["seed"], config["steps"]) == (7, 0)
    assert config["agent"]["backbone"]["hidden_sizes"] == [4]
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["episodes"], summary["updates"]) == (0, 0, 0)
    assert len((here / "run" / "metrics.csv").read_text().splitlines()) == 2


def test_run_again_in_the_same_folder_is_refused_and_touches_nothing(here, refused):
    (here / "run").mkdir()
    (here / "run" / "notes.txt").write_text("mine")
    error = refused("run", "catch_reinforce", *QUICK, "--directory", "run")
    assert error.startswith("directory must be new or empty, got 'run'")
    assert [p.name for p in (here / "run").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["catch_reinforc"], "EXPERIMENT: unknown value 'catch_reinforc'; did you mean 'catch_rei"),
        (["json"], "EXPERIMENT: unknown value 'json'; "),
        (["no.such.module"], "no.such.module: No module named 'no'"),
        (["nothing.py"], "nothing.py: there is no such file"),
        (["os.path"], "os.path must hold an Experiment called experiment; see `rlws list`"),
        (["catch_reinforce", "--step", "3"], "unknown option --step; did you mean --steps?"),
        (
            ["catch_reinforce", "--steps", "-3"],
            "--steps must be at least 0 and at most 1e+15, got -3",
        ),
        (["catch_reinforce", "--agent.discount", "2"], "agent.discount must be at least 0 and at"),
    ],
)
def test_run_explains_wrong_input_in_one_line(args, message, here, refused):
    assert message in refused("run", *args)
    assert not list(here.iterdir())


def test_help_is_about_the_experiment_where_there_is_one(rlws):
    found = rlws("run", "catch_reinforce", "--help")
    assert found.status == 0
    assert "--agent.learning-rate" in found.out
    found = rlws("run", "--help")
    assert found.status == 0
    assert "a name in experiments/, a module or a file.py" in found.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        "cartpole_dqn --agent.capacity 1000000000",
        "cartpole_dqn --agent.capacity 2147483647",
        "cartpole_ppo_device --trainer.num-envs 100000000",
        "cartpole_ppo --agent.unroll-length 2000000000 --agent.minibatches 1",
        "cartpole_reinforce --agent.max-episode-length 1000000000",
    ],
)
def test_what_does_not_fit_into_the_memory_is_said_before_it_is_taken(flags, refused, monkeypatch):
    monkeypatch.setattr("rlws.trainers.memory.free_memory", lambda: 20e9)
    said = refused("run", *flags.split())
    assert re.search(r"must fit into the 20.0 GB of memory .* got [\d,.]+ GB; lower \w+\.", said)
