"""Folders of runs: whose they are, and what may go on in them."""

import shutil
import time

import pytest
from faulty import experiment, left, play, refused
from processes import done, end, outcome, run_of, start, tree

from rlws.__main__ import main as rlws
from rlws.commands.cli import main


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with a run of 20 steps."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    play(folder, "--steps", "20")
    return folder


def unchanged(before, folder):
    """Whether nothing in a folder is other than before, but for who looked last."""
    mine = lambda files: {path: x for path, x in files.items() if path.name != ".lock"}
    return mine(before) == mine(tree(folder))


@pytest.mark.parametrize(
    ("flags", "differs"),
    [
        ("--agent.backbone.hidden-sizes 8", "agent.backbone.hidden_sizes: [4], [8]"),
        ("--agent.backbone.hidden-sizes 4 4", "agent.backbone.hidden_sizes: [4], [4, 4]"),
        ("--agent.backbone.activation relu", "agent.backbone.activation: 'tanh', 'relu'"),
        ("--agent.learning-rate 1e-5", "agent.learning_rate: 0.0005, 1e-05"),
        ("--seed 1", "seed: 0, 1"),
        ("--environment faulty:nan", "environment: 'faulty:none', 'faulty:nan'"),
        ("--trainer.num-envs 2", "trainer.num_envs: 1, 2"),
        ("--trainer.overlap", "trainer.overlap: False, True"),
    ],
)
def test_a_run_of_other_settings_is_not_gone_on_with(flags, differs, begun, capfd):
    before = tree(begun)
    status, line = refused(capfd, begun, "--steps", "60", *flags.split())
    assert status == 2
    assert differs in line
    assert "rlws fork" in line
    assert unchanged(before, begun)


def test_another_run_is_not_begun_in_the_folder_of_one(begun, capfd):
    before = tree(begun)
    with pytest.raises(SystemExit) as error:
        main(experiment, ["--directory", str(begun)])
    assert error.value.code == 2
    assert "must be new or empty" in capfd.readouterr().err
    assert unchanged(before, begun)


@pytest.mark.parametrize("steps", ["0", "7", "20"])
def test_a_finished_run_is_left_as_it_is(steps, begun, capfd):
    before = tree(begun)
    play(begun, "--steps", steps)
    assert capfd.readouterr().out.startswith("finished already")
    assert unchanged(before, begun)


@pytest.mark.slow
def test_a_larger_budget_comes_to_what_one_long_run_does(begun, tmp_path, in_peace):
    folder = shutil.copytree(begun, tmp_path / "run")
    play(folder)
    longer = left(folder)
    assert (longer["step"], longer["arrays"]) == (in_peace["step"], in_peace["arrays"])


@pytest.mark.parametrize("verb", ["resume", "inspect", "evaluate", "watch", "fork"])
@pytest.mark.parametrize("there", [True, False])
def test_no_run_is_to_be_found_in_an_empty_folder(verb, there, tmp_path, capfd):
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    assert rlws([verb, str(folder)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(folder) in line
    assert not list(tmp_path.rglob("*")) or there


@pytest.mark.slow
@pytest.mark.parametrize(
    "seconds", [0.3, *(pytest.param(x, marks=pytest.mark.thorough) for x in (0.0, 1.0))]
)
def test_of_two_runs_in_a_folder_one_goes_on(seconds, tmp_path, uninterrupted):
    _, want = uninterrupted("reinforce")
    folder = tmp_path / "run"
    first = start(*run_of("reinforce", folder))
    time.sleep(seconds)
    both = end(start(*run_of("reinforce", folder))), end(first)
    statuses = sorted(ended.status for ended in both)
    assert statuses[0] == 0
    assert statuses[1] in (2, 6)  # 2: at the very moment when the other made the folder
    if statuses[1] == 6:
        (loser,) = (ended for ended in both if ended.status)
        assert "which process " in loser.err
    done(*run_of("reinforce", folder))
    assert outcome(folder) == want
