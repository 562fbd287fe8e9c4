import pathlib

import pytest

from rlws.commands import catalogue
from rlws.environments import available

ROOT = pathlib.Path(__file__).parents[2]


def test_modules_are_those_of_the_folder_with_their_first_lines():
    found = catalogue.modules("agents_zoo")
    files = {path.stem for path in (ROOT / "agents_zoo").glob("*.py")} - {"__init__"}
    assert set(found) == files
    assert found["reinforce"] == "REINFORCE: the Monte Carlo policy gradient"
    assert all(found.values())
    assert catalogue.modules("no_such_package") == {}


def test_modules_are_not_imported(tmp_path, monkeypatch):
    package = tmp_path / "some_package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loud.py").write_text('"""Says something. And more."""\nraise RuntimeError\n')
    (package / "broken.py").write_text("def")
    monkeypatch.syspath_prepend(tmp_path)
    expected = {"broken": "", "loud": "Says something"}
    assert catalogue.modules("some_package_of_mine") == expected


@pytest.mark.slow
def test_environments_are_known_newest_and_described():
    found = catalogue.environments()
    assert set(found) <= set(available())
    assert "gym:CartPole-v1" in found
    assert "gym:CartPole-v0" not in found
    assert found["jax:Catch"].startswith("The ball falls a row a step")
    assert found["jax:CartPole-v1"].startswith("gymnasium's CartPole-v1")
    assert found["gym:CartPole-v1"].startswith("This environment corresponds to the version")


GYMNAX = '''
class EnvParams:
    """Of no interest."""


class Breakout(Environment):
    """Bricks are broken.

    And more."""

    @property
    def name(self) -> str:
        """Environment name."""
        return "Breakout-MinAtar"

    @property
    def num_actions(self) -> int:
        return 3
'''


def test_environments_of_gymnax_are_found_by_the_names_they_give(tmp_path, monkeypatch):
    (tmp_path / "minatar").mkdir()
    (tmp_path / "minatar" / "breakout.py").write_text(GYMNAX)
    folder = catalogue._folder
    ours = lambda package: tmp_path if package == "gymnax.environments" else folder(package)
    monkeypatch.setattr(catalogue, "_folder", ours)
    monkeypatch.setattr("rlws.environments.available", lambda: ["gymnax:Breakout-MinAtar"])
    assert catalogue.environments() == {"gymnax:Breakout-MinAtar": "Bricks are broken"}


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (None, ""),
        ("", ""),
        ("One line.", "One line"),
        ("DQN: it learns.\n\nMore.", "DQN: it learns"),
        ("## Description\nThe first. The second.", "The first"),
        ("From P. Miller's\nthesis (1999). It goes on.", "From P. Miller's thesis (1999)"),
        ("See [the page](https://a.b) of `x`.", "See the page of x"),
    ],
)
def test_first_sentence(docstring, expected):
    assert catalogue.first_sentence(docstring) == expected
