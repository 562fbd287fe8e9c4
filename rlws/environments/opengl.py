"""How MuJoCo draws, which it chooses when it is imported."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from rlws.settings import SettingError

T = TypeVar("T")

_why_not = ""  # there are no pictures in this process, if so


def imported(load: Callable[[], T]) -> T:
    """Returns what `load` does, which imports MuJoCo: with pictures if it can be, else without.

    If not told how to draw, MuJoCo does it with GLFW, which without a screen fails at the first
    picture; if told how in vain, it cannot even be imported, so that nothing could be trained.
    """
    global _why_not
    if sys.platform == "linux" and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")
    told = os.getenv("MUJOCO_GL")
    try:
        return load()
    except ModuleNotFoundError:
        raise
    except Exception as error:  # OpenGL's loaders raise what they like
        if told is None:
            raise
        os.environ["MUJOCO_GL"], _why_not = "disabled", f"MUJOCO_GL={told}: {error}"
        return load()


def no_picture(error: Exception) -> SettingError:
    """Returns what to say of the error that drawing has raised, whatever OpenGL lacks."""
    reason = " ".join((_why_not or f"{error}").split())
    return SettingError(
        f"a picture needs OpenGL, which does not work here ({reason}); without a screen,"
        " set MUJOCO_GL to egl, or to osmesa if its library is installed"
    )
