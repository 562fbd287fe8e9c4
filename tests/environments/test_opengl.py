"""How MuJoCo is imported where it can draw, and where it cannot."""

import os

import pytest

from rlws.environments import opengl
from rlws.settings import SettingError


@pytest.fixture(autouse=True)
def screenless(monkeypatch):
    """A Linux without a screen, which has not been told how to draw."""
    monkeypatch.setattr(opengl, "_why_not", "")
    monkeypatch.setattr(opengl.sys, "platform", "linux")
    monkeypatch.setattr(os, "environ", {})


def load(works):
    """Returns an import that works where `MUJOCO_GL` is one of these; it says how it is."""

    def load():
        told = os.environ.get("MUJOCO_GL")
        if told not in works:
            raise AttributeError("no eglQueryString\nhere")
        return told

    return load


@pytest.mark.parametrize(
    ("environment", "works", "expected"),
    [
        ({}, ["egl", "disabled"], "egl"),
        ({"DISPLAY": ":0"}, [None], None),
        ({"MUJOCO_GL": "osmesa"}, ["osmesa", "egl"], "osmesa"),
        ({}, ["disabled"], "disabled"),
        ({"MUJOCO_GL": "nosuch"}, ["egl", "disabled"], "disabled"),
    ],
)
def test_imported_draws_with_what_there_is(environment, works, expected):
    os.environ.update(environment)
    assert opengl.imported(load(works)) == expected


def test_what_was_told_in_vain_is_why_there_are_no_pictures():
    opengl.imported(load(["disabled"]))
    opengl.imported(load(["disabled"]))  # again, by another adapter
    said = str(opengl.no_picture(ValueError("black")))
    assert said.startswith(
        "a picture needs OpenGL, which does not work here (MUJOCO_GL=egl: no egl"
    )
    assert "\n" not in said


def test_what_drawing_raises_is_why_there_is_no_picture():
    opengl.imported(load(["egl"]))
    assert "does not work here (black)" in str(opengl.no_picture(ValueError("black")))
    assert isinstance(opengl.no_picture(ValueError("black")), SettingError)


def test_imported_hides_no_other_fault():
    os.environ["DISPLAY"] = ":0"
    with pytest.raises(AttributeError):
        opengl.imported(load(["egl"]))
    with pytest.raises(ModuleNotFoundError):
        opengl.imported(lambda: __import__("no_such_module"))
