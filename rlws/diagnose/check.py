"""What the doctor says of one thing, and where that was written."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from rlws.actor import Actor

Verdict = Literal["pass", "fail", "note", "skip"]


class Check(NamedTuple):
    """One line of the doctor's table."""

    name: str
    isolates: str
    expected: str
    got: str
    verdict: Verdict
    component: str = ""  # the likely one, where it fails
    advice: str = ""


def is_real(x: Any) -> bool:
    """Returns whether x is an array of real numbers."""
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def locate(part: Any, method: str) -> str:
    """Returns where a method of a part was written: "file:line Class.method"."""
    while isinstance(part, Actor) and isinstance(inner := getattr(part, "actor", None), Actor):
        part = inner  # of a wrapper
    function: Callable = getattr(type(part), method)
    source = inspect.unwrap(function)
    file = pathlib.Path(inspect.getsourcefile(source) or "?")
    with_folder = "/".join(file.parts[-2:])
    line = inspect.getsourcelines(source)[1]
    return f"{with_folder}:{line} {source.__qualname__}"
