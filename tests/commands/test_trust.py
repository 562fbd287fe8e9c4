"""What a run folder names is imported from packages; from scripts only if one says so."""

import json
import sys

import pytest

import rlws as workshop
from rlws import sources
from rlws.environments import registry
from tests.commands.toys import TOY

SCRIPT = """
from agents_zoo import ppo
from rlws import environments
from rlws.environments import Catch
from tests.commands.toys import TOY
import dataclasses

with open("imported", "a") as file:
    file.write("once ")

class Config(ppo.Config):
    mine: int = 3

class Walk(Catch):
    pass

environments.register("mine:Walk", Walk)
agent = Config(**{f.name: getattr(TOY.agent, f.name) for f in dataclasses.fields(TOY.agent)})
experiment = dataclasses.replace(TOY, environment="mine:Walk", agent=agent)
"""


@pytest.fixture
def elsewhere(monkeypatch):
    """Forgets what this process has loaded of scripts, as another has."""

    def forget():
        sys.modules.pop("my_script", None)
        registry._factories.pop("mine:Walk", None)
        for name, value in {"scripts": {}, "_instead": {}, "_trusting": False}.items():
            monkeypatch.setattr(sources, name, value)

    forget()
    yield forget
    forget()


@pytest.mark.slow
def test_a_run_of_a_script_is_found_again_by_who_trusts_it(tmp_path, monkeypatch, rlws, elsewhere):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_script.py").write_text(SCRIPT)
    assert rlws("run", "my_script.py", "--directory", "run", "--steps", "60").status == 0
    assert rlws("evaluate", "run", "--episodes", "3").status == 0  # here, it is loaded
    told = "is imported only if you say that you trust it: add --trust"
    times = len((tmp_path / "imported").read_text().split())
    for verb in ("evaluate", "watch", "resume"):
        elsewhere()
        found = rlws(verb, "run")
        assert found.status == 2
        assert f"run is a run of {tmp_path / 'my_script.py'}, which {told}" in found.err
    with pytest.raises(workshop.settings.SettingError, match="you trust it"):
        workshop.load("run")
    assert len((tmp_path / "imported").read_text().split()) == times
    assert rlws("evaluate", "run", "--episodes", "3", "--trust").status == 0
    elsewhere()
    assert rlws("--trust", "resume", "run", "--steps", "120").status == 0
    elsewhere()
    policy = workshop.load("run", trust=True)
    assert type(policy.experiment.agent).__name__ == "Config"
    elsewhere()
    (tmp_path / "my_script.py").unlink()
    assert "which is no longer there" in rlws("evaluate", "run", "--trust").err


@pytest.mark.parametrize("verb", ["evaluate", "resume", "watch", "fork"])
def test_what_comes_with_a_folder_is_not_imported(verb, copy, monkeypatch, refused, elsewhere):
    monkeypatch.chdir(copy.parent)
    (copy / "evil.py").write_text("open('imported', 'w')")
    config = json.loads((copy / "config.json").read_text())
    for change in (
        {"agent": {**config["agent"], "type": f"{copy.name}.evil:Config"}},
        {"environment": f"gym:{copy.name}.evil:Env-v0"},
    ):
        (copy / "config.json").write_text(json.dumps(config | change))
        more = ["--name", "x"] if verb == "fork" else []
        said = refused(verb, copy, *more)
        assert f"'{copy.name}.evil' is of no installed package; --trust imports it" in said
    assert not (copy.parent / "imported").exists()


def test_what_is_installed_needs_no_trust(elsewhere):
    assert sources.module("json") is json
    assert sources.module("agents_zoo.ppo").Config is type(TOY.agent)
    with pytest.raises(ImportError) as error:
        sources.module("no_such_module_at_all")
    assert not isinstance(error.value, sources.UntrustedError)
