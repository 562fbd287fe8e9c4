import os
import pathlib
import subprocess
import sys

import pytest

from rlws.__main__ import main
from rlws.commands import list as listing
from tests.commands.folders import write_run, write_seeds

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "results"
    write_run(root / "toy" / "done", seed=3, score=2.5)
    write_run(root / "toy" / "half", seed=4, summary={})
    write_run(root / "toy" / "crashed", summary={"ended_by": "NonFiniteError: w", "steps": 200})
    write_seeds(root / "other" / "sweep", [1.0, 2, 3, 100])
    (root / "other" / "begun").mkdir()
    (root / "other" / "begun" / "config.json").touch()
    order = ["toy/done", "other/sweep", "toy/half", "toy/crashed", "other/begun"]
    for age, name in enumerate(order):
        os.utime(root / name / "config.json", (1e9 - age * 86400,) * 2)
    return tmp_path


def table(capsys):
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_list_runs_newest_first_with_state(here, capsys):
    assert main(["list", "runs"]) == 0
    header, *rows = table(capsys)
    assert header == ["run", "begun", "steps", "seed", "evaluation", "state"]
    assert [[*row[:1], *row[2:]] for row in rows] == [
        ["results/toy/done", "400", "3", "2.5", "finished"],
        ["results/other/sweep", "1,600", "4 runs", "2.5", "unfinished"],
        ["results/toy/half", "400", "4", "", "unfinished"],
        ["results/toy/crashed", "200", "0", "", "ended by NonFiniteError: w"],
        ["results/other/begun", "", "", "", "unreadable"],
    ]
    assert rows[0][1].startswith("2001-09-")


def test_list_runs_finds_those_with_a_folder_of_their_own_choice(here, capsys):
    write_run(here / "results" / "mine", seed=7)
    main(["list", "runs"])
    names = [row[0] for row in table(capsys)[1:]]
    assert sorted(names)[0] == "results/mine"
    assert len(names) == 6  # the members of the sweep are not among them


def test_list_runs_shows_the_last_and_says_that_there_are_more(here, capsys):
    assert main(["list", "runs", "--last", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4
    assert out[-1] == "3 older ones: --last 0 shows all"
    main(["list", "runs", "--last", "0"])
    assert len(capsys.readouterr().out.splitlines()) == 6


@pytest.mark.parametrize(("kind", "name"), [("agents", "ppo"), ("experiments", "cartpole_ppo")])
def test_list_names_with_a_line_each(kind, name, here, capsys):
    assert main(["list", kind]) == 0
    assert dict(table(capsys))[name].startswith("PPO")


def test_list_without_a_kind_shows_all(here, capsys, monkeypatch):
    monkeypatch.setattr(listing.catalogue, "environments", lambda: {"jax:Mine": "of mine"})
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for text in (
        *listing.KINDS,
        "dqn\t",
        "cartpole_dqn\t",
        "jax:Mine\tof mine",
        "results/toy/done",
    ):
        assert text in out


def test_list_does_not_wait_for_jax(here):
    """In a process of its own, as both are imported here already."""
    code = (
        "import sys; from rlws.__main__ import main; main(['list', 'runs']); "
        "main(['list', 'agents']); sys.exit('jax' in sys.modules or 'scipy' in sys.modules)"
    )
    path = os.pathsep.join([str(ROOT), os.getenv("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["agent"], "KIND: unknown value 'agent'; did you mean 'agents'?"),
        (["runs", "--last", "-1"], "--last must be at least 0, got -1"),
        (["runs", "--results", "nowhere"], "--results must be a folder that is there, got 'no"),
    ],
)
def test_list_explains_wrong_input_in_one_line(args, message, here, capsys):
    assert main(["list", *args]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
