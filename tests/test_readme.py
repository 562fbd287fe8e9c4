"""The top README: its code runs, its commands exist."""

import configparser
import importlib
import pathlib
import re
import shlex

import pytest

from rlws.__main__ import VERBS
from rlws.commands import cli
from rlws.commands.flags import parse
from rlws.runs import launch
from rlws.runs.check import check_experiment
from rlws.settings import SettingError

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands():
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.mark.slow
def test_readme_python_runs(tmp_path, monkeypatch):
    # One module of all blocks, as a reader would type them, with small budgets.
    source, budgets = re.subn(r"\bsteps=[\d_]+", "steps=600", "\n".join(blocks("python")))
    assert budgets
    (tmp_path / "from_readme.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("from_readme")
    assert module.summary["steps"] >= 600
    assert module.summary["updates"] > 0
    assert len(list(tmp_path.glob("results/*/*/summary.json"))) == 5


@pytest.mark.parametrize("command", commands())
def test_readme_command_exists(command, monkeypatch):
    words = shlex.split(command, comments=True)
    if words[0] == "rlws":
        assert words[1] in VERBS
        return
    launcher, requirement, python, option, name, *args = words
    assert (launcher, python, option) == (".ci/venv", "python", "-m")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extra in re.findall(r"\w+", requirement):
        assert extra in setup["options.extras_require"]
    module = importlib.import_module(name)
    if name == "pytest":
        return
    if name == "rlws":
        assert args[0] in VERBS
        return
    parsed = []
    monkeypatch.setattr(launch, "run", parsed.append)
    cli.main(module.experiment, args)
    try:
        check_experiment(parsed[0])
    except SettingError as error:
        if requirement != "." and f"pip install 'rlws{requirement[1:]}'" in str(error):
            pytest.skip(str(error))
        raise
    assert (parsed[0] != module.experiment) == bool(args)


def test_readme_fork_finds_a_checkpoint_where_it_asks_for_one():
    by_verb = {words[1]: words[2:] for words in map(shlex.split, commands()) if words[0] == "rlws"}
    (name, *flags), (folder, option, at, *_) = by_verb["run"], by_verb["fork"]
    run = parse(importlib.import_module(f"experiments.{name}").experiment, flags)
    assert (run.directory, option) == (folder, "--at")
    assert run.checkpoint.period < int(at) < run.steps < run.checkpoint.period * run.checkpoint.keep


def test_readme_has_one_test_command_for_ci():
    assert len([command for command in commands() if "pytest" in command]) == 1


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_readme_links_lead_somewhere(target):
    assert (ROOT / target).exists()
