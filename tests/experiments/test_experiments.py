"""Every experiment of the folder is well-formed and runs."""

import functools
import importlib
import pathlib

import pytest

import experiments
from agents_zoo import reinforce
from rlws.commands.cli import main
from rlws.runs import launch
from rlws.settings import SettingError

FAST = ("cartpole_reinforce",)
NAMES = [path.stem for path in pathlib.Path(experiments.__file__).parent.glob("[!_]*.py")]


@functools.cache
def trained():
    """Returns an experiment for each agent and trainer; those that differ only in the environment
    need not all train, as `launch.check` makes both sides and sees that they fit."""
    names = sorted(NAMES, key=lambda name: name not in FAST)
    found = {}
    for name in names:
        experiment = importlib.import_module(f"experiments.{name}").experiment
        found.setdefault((experiment.agent, experiment.trainer), name)
    return set(found.values())


def test_there_are_experiments():
    assert {"cartpole_reinforce", "catch_reinforce"} <= set(NAMES)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in sorted(NAMES)],
)
def test_experiment_runs_at_toy_size(name, tmp_path):
    module = importlib.import_module(f"experiments.{name}")
    experiment = module.experiment
    assert experiment.name == name
    try:
        launch.check(experiment)
    except SettingError as error:
        if "package that is missing" not in str(error):
            raise
        pytest.skip(str(error))
    if name not in trained():
        return
    toy = "--steps 20 --evaluation.episodes 2 --quiet --directory"
    summary = main(experiment, [*toy.split(), str(tmp_path / "run")])
    assert 20 <= summary["steps"] < 20 + experiment.trainer.num_envs
    assert {"evaluation_return_mean", "seconds"} <= set(summary)


def test_experiments_of_reinforce_share_one_configuration():
    modules = [importlib.import_module(f"experiments.{name}") for name in NAMES]
    agents = {module.experiment.agent for module in modules}
    assert len([agent for agent in agents if type(agent) is reinforce.Config]) == 1
