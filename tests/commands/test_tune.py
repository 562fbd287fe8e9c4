"""`rlws tune`: its arguments."""

import pytest

from rlws.__main__ import main
from rlws.tune import tune

NAME = "cartpole_ppo_device"
RATE = "agent.learning-rate=log:1e-5:1e-2"


@pytest.fixture
def asked(monkeypatch):
    """What a search was asked for, that is not made."""
    found = []
    monkeypatch.setattr(tune, "tune", lambda *args: found.append(args))
    return found


def test_arguments_are_of_the_search_and_of_the_experiment(asked):
    args = ["--trials", "1e2", "--space", RATE, "--steps", "10k", "--space=agent.discount=0.9,0.99"]
    assert main(["tune", NAME, *args, "--seed", "3", "--seeds", "2"]) == 0
    ((experiment, search),) = asked
    assert (experiment.steps, experiment.seed, experiment.name) == (10_000, 3, NAME)
    assert search.space == (RATE, "agent.discount=0.9,0.99")
    assert (search.trials, search.seeds, search.method, search.confirm) == (100, 2, "asha", 10)


def test_few_trials_are_all_trained_to_the_end_unless_it_is_said(asked):
    assert main(["tune", NAME, "--space", RATE]) == 0
    assert main(["tune", NAME, "--space", RATE, "--method", "halving"]) == 0
    assert [search.method for _, search in asked] == ["sobol", "halving"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--space must say what is searched, got none; such as"),
        (["--space", "agent.lr=1:2"], "Config has no setting 'lr'; it has"),
        (["--space", RATE, "--trials", "0"], "Search.trials must be at least 1, got 0"),
        (["--space", RATE, "--sweep", "seed=0..3"], "tune must be of one run, got a sweep"),
        (["--space", RATE, "--resume"], "resume needs the folder of a study, got none"),
        (["--space", RATE, "--stps", "10"], "unknown option --stps; did you mean --steps?"),
    ],
)
def test_wrong_input_is_one_line(refused, args, message):
    assert refused("tune", NAME, *args).startswith(message)


def test_the_folder_of_a_study_is_answered_with_how_it_goes_on(refused, tmp_path):
    (tmp_path / "study.json").touch()
    line = refused("tune", tmp_path, "--resume")
    assert line.endswith(f"repeat the command that began it with --directory {tmp_path} --resume")
