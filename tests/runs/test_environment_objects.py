"""Experiments whose environment is no name: a JaxEnvironment, or a function of seed and index."""

import gymnasium
import numpy as np
import pytest

import rlws
from agents_zoo import reinforce
from rlws.analysis.results import Result
from rlws.commands.flags import parse
from rlws.environments import Catch, make, resolve
from rlws.environments.wrappers import Stack, wrap
from rlws.networks import MLP
from rlws.runs.folders import experiment_of
from rlws.settings import SettingError, describe
from rlws.trainers import DeviceTrainer


def lake(seed, index):
    return gymnasium.make("FrozenLake-v1", is_slippery=False)


def experiment(environment, directory, **changes):
    return rlws.Experiment(
        name="object",
        environment=environment,
        agent=reinforce.Config(backbone=MLP((4,))),
        steps=20,
        quiet=True,
        directory=str(directory),
        evaluation=rlws.runs.experiment.Evaluation(episodes=2),
        **changes,
    )


@pytest.mark.slow
def test_a_jax_environment_is_settings_and_is_found_again(tmp_path):
    environment = wrap(Catch(rows=3, columns=2), Stack(2))
    given = experiment(environment, tmp_path / "run")
    rlws.run(given)
    assert experiment_of(tmp_path / "run").environment == environment
    policy = rlws.load(tmp_path / "run")
    assert policy(np.zeros((3, 4), np.float32)) in (0, 1, 2)
    shown = Result(tmp_path, describe(given), {}).environment
    assert shown == "Wrapped(environment=Catch(rows=3, columns=2), wrapper=Stack(count=2))"


@pytest.mark.slow
def test_a_function_is_known_by_its_name(tmp_path, capsys):
    rlws.run(experiment(lake, tmp_path / "run"))
    assert "nobody else can find" not in capsys.readouterr().err
    found = experiment_of(tmp_path / "run").environment
    assert found == f"function:{__name__}:lake"
    assert rlws.load(tmp_path / "run")(np.int32(0)) in range(4)
    assert make(found).observation_spec().num_values == 16
    assert make(found + "+limit=5").max_episode_steps == 5


@pytest.mark.slow
def test_a_function_without_a_name_runs_and_says_what_cannot_be(tmp_path, capsys):
    rlws.run(experiment(lambda seed, index: lake(seed, index), tmp_path / "run"))
    assert "nobody else can find 'function:" in capsys.readouterr().err
    with pytest.raises(SettingError, match="must be defined with def, at the top of a module"):
        rlws.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (Catch, r"got <class .*Catch'>; write Catch\(\)"),
        (7, "got 7; write def make"),
        (lambda seed, index: 3, "a JaxEnvironment, got 3 from <function"),
        (f"function:{__name__}:sea", "there is no function 'function:.*sea' here"),
        ("function:sea", "there is no function 'function:sea' here"),
    ],
)
def test_what_is_no_environment_is_told(tmp_path, environment, words):
    with pytest.raises(SettingError, match=words):
        rlws.run(experiment(environment, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_environment_itself_is_none_of_a_run(tmp_path):
    with pytest.raises(SettingError, match=r"a function of seed and index .* got <.*CartPole"):
        rlws.run(experiment(gymnasium.make("CartPole-v1"), tmp_path / "run"))


def test_who_wants_pictures_is_asked_for_them():
    asked = []

    def drawn(seed, index, render=False):
        asked.append(render)
        return lake(seed, index)

    for render in (False, True):
        resolve.host(drawn, 0, 0, render).close()
    assert asked == [False, True]


def test_a_name_takes_the_place_of_an_object_on_the_command_line(tmp_path):
    given = experiment(lake, tmp_path)
    assert parse(given, ["--environment", "jax:Catch+stack=2"]).environment == "jax:Catch+stack=2"
    assert parse(given, ["--seed", "3"]).environment is lake
    catch = experiment(Catch(), tmp_path, trainer=DeviceTrainer())
    assert parse(catch, ["--environment.rows", "4"]).environment == Catch(rows=4)
