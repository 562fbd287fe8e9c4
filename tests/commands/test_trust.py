"""Code that came with a run: used by who ran it here, or said so, and never else."""

import json
import shutil
import sys

import pytest

import rlws as package
from rlws import sources
from rlws.environments import registry
from rlws.runs import launch, policy
from rlws.settings import SettingError
from tests.commands.toys import TOY, tree

SCRIPT = """
import pathlib
import rlws, beside
from agents_zoo import ppo
from rlws.environments import Catch, register
from rlws.networks import MLP
from rlws.trainers import DeviceTrainer

pathlib.Path(__file__).with_name("imported").touch()
register("mine:Catch", Catch)

class Config(ppo.Config):
    more: int = 3

agent = Config(backbone=MLP((4,)), unroll_length=10, minibatches=2)
parts = dict(name="mine", environment="mine:Catch", agent=agent, trainer=DeviceTrainer())
experiment = rlws.Experiment(steps=0, evaluation=rlws.Evaluation(episodes=2), quiet=True, **parts)
rlws.main(experiment)
raise AssertionError("what follows a run is not looked at")
"""
# What uses the code of a run, but for their arguments.
VERBS = {
    "evaluate": ["--episodes", "2"],
    "watch": [],
    "resume": ["--steps", "0"],
    "fork": ["--agent.more", "4"],
}
ONE_SOON = [pytest.param(x, marks=[pytest.mark.slow] * (x != "evaluate")) for x in VERBS]


def forget():
    """Makes this process one that has never seen the script."""
    sys.modules.pop("mine", None)
    sys.modules.pop("beside", None)
    registry._factories.pop("mine:Catch", None)


@pytest.fixture(autouse=True)
def _new_process(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a script, and the run that it made."""
    from rlws.__main__ import main

    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.py").write_text(SCRIPT)
    (folder / "beside.py").write_text("")
    forget()
    assert main(["run", str(folder / "mine.py"), "--directory", str(folder / "run")]) == 0
    (folder / "imported").unlink()
    return folder


@pytest.fixture
def ours(made, tmp_path, monkeypatch):
    """A copy of the run, in which verbs do no more than begin."""
    monkeypatch.setattr(launch, "_train", lambda *args: None)
    monkeypatch.setattr("rlws.tracking.video.write_video", lambda path, *args: path)
    yield shutil.copytree(made / "run", tmp_path / "run")
    (made / "imported").unlink(missing_ok=True)


def of_a_stranger(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_who_ran_a_script_here_needs_no_word(verb, made, ours, rlws):
    assert json.loads((ours / "config.json").read_text())["code"] == ["mine", f"{made}/mine.py"]
    found = rlws(verb, ours, *VERBS[verb])
    assert found.status == 0, found.err
    assert (made / "imported").exists()


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_the_script_of_a_stranger_is_not_imported(
    verb, made, ours, tmp_path, rlws, refused, monkeypatch
):
    of_a_stranger(monkeypatch, tmp_path)
    monkeypatch.chdir(made)
    before = tree(ours)
    line = refused(verb, ours, *VERBS[verb])
    assert "'mine:Config' here, of an installed package" in line
    assert f"{made}/mine.py made this run" in line
    assert "--trust" in line
    with pytest.raises(SettingError, match="trust=True"):
        package.load(ours)
    assert tree(ours) == before
    assert not (made / "imported").exists()
    found = rlws(verb, ours, "--trust", *VERBS[verb])
    assert found.status == 0, found.err
    assert (made / "imported").exists()
    assert not sources.trusted()


@pytest.mark.slow
def test_an_environment_in_a_stranger_s_script_is_said_to_be_there(
    made, ours, tmp_path, refused, monkeypatch
):
    of_a_stranger(monkeypatch, tmp_path)
    config = json.loads((ours / "config.json").read_text())
    del config["agent"]["more"]
    config["agent"]["type"] = "agents_zoo.ppo:Config"
    (ours / "config.json").write_text(json.dumps(config))
    line = refused("evaluate", ours)
    assert line.startswith(f"environment: unknown name 'mine:Catch'; {made}/mine.py made this run")
    assert not (made / "imported").exists()


def test_a_script_that_moved_is_found_where_the_user_is(made, ours, tmp_path, refused, monkeypatch):
    for name in ("mine.py", "beside.py"):
        shutil.copyfile(made / name, tmp_path / name)
    config = json.loads((ours / "config.json").read_text()) | {"code": ["mine", "/gone/mine.py"]}
    (ours / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    assert "/gone/mine.py made this run" in refused("evaluate", ours)
    assert policy.load(ours, trust=True).experiment.agent.more == 3
    assert (tmp_path / "imported").exists()


NAMES = {
    "a class": {"agent": {"type": "received.evil:Config"}},
    "a class of a package of ours": {"agent": {"type": "agents_zoo.evil:Config"}},
    "a part": {"trainer": {"type": "received.evil:Trainer"}},
    "a module of gymnasium's": {"environment": "gym:received.evil:Walk-v0"},
    "a module of Python's": {"agent": {"type": "antigravity:Config"}},
    "code": {"code": ["received.evil", "received/evil.py"]},
    "a program": {"code": ["pytest.__main__", ""]},
    "code in no file": {"code": ["received.evil", ""]},
    "code of another name": {"code": ["agents_zoo.evil", "received/evil.py"]},
    "code that is none": {"code": {"received.evil": 3}},
}


@pytest.mark.parametrize("verb", ONE_SOON)
@pytest.mark.parametrize("what", NAMES)
def test_nothing_that_a_folder_names_is_imported(what, verb, toy, tmp_path, rlws, monkeypatch):
    monkeypatch.setattr(launch, "_train", lambda *args: None)
    monkeypatch.setattr(sources, "load", lambda *args: pytest.fail("imported"))
    for name in ("received", "agents_zoo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "evil.py").write_text("open('canary', 'w')")
    run = shutil.copytree(toy, tmp_path / "received" / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | NAMES[what]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])  # as in a notebook
    refused = what == "code that is none" or not what.startswith(("code", "a program"))
    found = rlws(verb, run, *["--steps", "400"] * (verb == "resume"))
    assert (found.status == 2) == refused, found.err
    assert not (tmp_path / "canary").exists()
    assert "antigravity" not in sys.modules


def test_the_current_folder_comes_after_what_is_installed(tmp_path, rlws, monkeypatch):
    (tmp_path / "agents_zoo").mkdir()
    (tmp_path / "agents_zoo" / "ppo.py").write_text("open('canary', 'w')")
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "run", lambda experiment: None)
    assert rlws("run", "catch_reinforce").status == 0
    assert sys.path[-1] == str(tmp_path)
    assert not (tmp_path / "canary").exists()


def test_what_is_installed_is_told_from_what_is_not(tmp_path, monkeypatch):
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    names = "agents_zoo.ppo", "numpy", "gymnasium.envs", "mine", "os", "received.evil", ".ppo", ""
    assert [*map(sources.installed, names)] == [True, True, True, *[False] * 5]


def test_what_runs_of_itself_is_what_its_process_was_started_with(tmp_path, monkeypatch):
    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert sources.code_of(main) is None  # a notebook
    main.__file__ = str(tmp_path / "mine.py")
    assert sources.code_of(main) == ("mine", str(tmp_path / "mine.py"))
    assert sources.name_of("__main__") == "mine"
    assert sources.imported("mine") is main
    assert TOY.code is None
