"""The tutorial: its file runs, the doctor finds its bug, and its mend is one."""

import pathlib
import re

import pytest

from rlws.__main__ import main
from rlws.commands.target import agent_config
from rlws.diagnose import diagnose

TUTORIAL = pathlib.Path(__file__).parents[2] / "agents_zoo" / "TUTORIAL.md"
PYTHON = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)
DIFF = re.findall(r"^```diff\n-(.*)\n\+(.*)\n```", TUTORIAL.read_text(), re.MULTILINE)
SAYS = re.findall(r"^```text\n(.*?)^```", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)[0]
ASKED = "learner", "P6"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Returns the file as it is first written, and mended."""
    monkeypatch.chdir(tmp_path)
    ((wrong, right),) = DIFF
    source = PYTHON[0]
    assert source.count(wrong) == 1
    (tmp_path / "broken.py").write_text(source)
    (tmp_path / "awr.py").write_text(source.replace(wrong, right))
    return tmp_path / "broken.py", tmp_path / "awr.py"


@pytest.mark.slow
@pytest.mark.thorough
def test_the_doctor_says_what_the_tutorial_says_and_the_mend_is_one(files, capsys):
    only = ["--only", *ASKED]  # the rest is the doctor's own to test
    assert main(["diagnose", "broken.py", *only]) == 1
    said = " ".join(capsys.readouterr().out.split())
    said = re.sub(r"look at \S*broken\.py", "look at awr.py", said)
    assert " ".join(SAYS.split()) in said
    assert "2 fail," in said  # the cause, and what the tutorial says may follow from it
    assert diagnose(agent_config(str(files[1]), []), seeds=2, only=ASKED).healthy


@pytest.mark.slow
def test_the_rest_of_the_tutorial_runs(files, monkeypatch):
    monkeypatch.syspath_prepend(files[1].parent)
    source = "\n".join(PYTHON[1:]).replace("200_000", "4_000")
    scope = {"__name__": "tutorial"}
    exec(source, scope)
    assert scope["TestAWR"].config.discount == 0.98
    assert len(list(files[1].parent.glob("results/*/*/members.csv"))) == 2
