"""Every experiment of the folder is well-formed and runs."""

import importlib
import pathlib

import pytest

import experiments
from rlws.cli import main
from rlws.settings import SettingError

NAMES = [path.stem for path in pathlib.Path(experiments.__file__).parent.glob("[!_]*.py")]


def test_there_are_experiments():
    assert {"cartpole_reinforce", "catch_reinforce"} <= set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_experiment_runs_at_toy_size(name, tmp_path):
    module = importlib.import_module(f"experiments.{name}")
    experiment = module.experiment
    assert experiment.name == name
    try:
        experiment.check()
    except SettingError as error:
        if "package that is missing" not in str(error):
            raise
        pytest.skip(str(error))
    toy = "--steps 20 --evaluation.episodes 2 --agent.episodes-per-update 1 --quiet"
    summary = main(experiment, [*toy.split(), "--directory", str(tmp_path / "run")])
    assert summary["steps"] == 20
    assert {"evaluation_return_mean", "seconds"} <= set(summary)


def test_experiments_share_one_agent_configuration():
    modules = [importlib.import_module(f"experiments.{name}") for name in NAMES]
    assert len({m.experiment.agent for m in modules if name_of(m).startswith("reinforce")}) == 1


def name_of(module):
    return type(module.experiment.agent).__module__.rpartition(".")[2]
