"""Every experiment of the folder is well-formed and runs."""

import importlib
import pathlib

import pytest

import experiments
from agents_zoo import reinforce
from rlws.commands.cli import main
from rlws.runs.check import check_experiment
from rlws.settings import SettingError

# One of each kind of agent and trainer; what the others would train, their agents' tests do.
FAST = ("cartpole_reinforce",)
TRAINED = (*FAST, "cartpole_ppo_device", "cartpole_dqn", "memory_ppo", "pendulum_sac")
NAMES = [path.stem for path in pathlib.Path(experiments.__file__).parent.glob("[!_]*.py")]


def named(name):
    """Returns an experiment whose agent, environment and trainer fit; skips if a package lacks."""
    experiment = importlib.import_module(f"experiments.{name}").experiment
    assert experiment.name == name
    try:
        check_experiment(experiment)
    except SettingError as error:
        if "package that is missing" not in str(error):
            raise
        pytest.skip(str(error))
    return experiment


def test_there_are_experiments():
    assert {"cartpole_reinforce", "catch_reinforce"} <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES))
def test_experiment_is_named_as_its_file_and_its_parts_fit(name):
    named(name)


def marks(name):
    if name in FAST:
        return ()
    return pytest.mark.slow if name in TRAINED else pytest.mark.thorough


@pytest.mark.parametrize("name", [pytest.param(x, marks=marks(x)) for x in sorted(NAMES)])
def test_experiment_runs_at_toy_size(name, tmp_path):
    experiment = named(name)
    toy = "--steps 20 --evaluation.episodes 2 --quiet --directory"
    summary = main(experiment, [*toy.split(), str(tmp_path / "run")])
    assert 20 <= summary["steps"] < 20 + experiment.trainer.num_envs
    assert {"evaluation_return_mean", "seconds"} <= set(summary)


def test_experiments_of_reinforce_share_one_configuration():
    modules = [importlib.import_module(f"experiments.{name}") for name in NAMES]
    agents = {module.experiment.agent for module in modules}
    assert len([agent for agent in agents if type(agent) is reinforce.Config]) == 1
