"""A question about a part of an agent, the doctor's answer, and where the part was written."""

import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from rlws.actor import Actor
from rlws.learner import Learner

Verdict = Literal["pass", "fail", "note", "skip"]
# What an update must come to where a batch is another.
SAME, ANOTHER = "the same loss and gradient", "another loss or gradient"


class Check(NamedTuple):
    """One line of the doctor's table."""

    name: str
    isolates: str
    expected: str
    got: str
    verdict: Verdict
    component: str = ""  # the likely one, where it fails
    advice: str = ""


class Question(NamedTuple):
    """What can be asked of any agent."""

    name: str
    isolates: str
    expected: str = ""
    advice: str = ""  # the likely cause, where it fails

    def answer(
        self, fine: bool, got: str, component: str, expected: str = "", wrong: Verdict = "fail"
    ) -> Check:
        """Returns what was found; `wrong` is the verdict where that is not fine."""
        verdict: Verdict = "pass" if fine else wrong
        expected = expected or self.expected
        return Check(self.name, self.isolates, expected, got, verdict, component, self.advice)

    def holds(self, fine: bool, otherwise: str, component: str, wrong: Verdict = "fail") -> Check:
        """Returns that all is as expected, or what is instead."""
        return self.answer(fine, self.expected if fine else otherwise, component, wrong=wrong)

    def skip(self, reason: str) -> Check:
        """Returns why it does not apply."""
        return Check(self.name, self.isolates, "", reason, "skip")


def is_real(x: Any) -> bool:
    """Returns whether x is an array of real numbers."""
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def is_params(tree: Any) -> bool:
    """Returns whether a tree is, or looks like, the parameters of networks."""
    return isinstance(tree, Mapping) and any(isinstance(x, Mapping) for x in tree.values())


def locate(part: Any, method: str) -> str:
    """Returns where a method of a part was written: "file:line Class.method"."""
    while isinstance(part, Actor) and isinstance(inner := getattr(part, "actor", None), Actor):
        part = inner  # of a wrapper
    if method == "loss" and type(part).loss is Learner.loss:
        method = "update"  # which does without one
    function: Callable = getattr(type(part), method)
    source = inspect.unwrap(function)
    file = pathlib.Path(inspect.getsourcefile(source) or "?")
    with_folder = "/".join(file.parts[-2:])
    line = inspect.getsourcelines(source)[1]
    return f"{with_folder}:{line} {source.__qualname__}"
