"""Runs that were left in peace, and compiled programs, once for all tests."""

from functools import partial
from types import FunctionType

import faulty
import jax
import numpy as np
import pytest
from processes import done, outcome, run_of

from agents_zoo import ppo
from rlws.tracking import plots
from rlws.trainers import evaluation, learning, rollout


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    """Those of runs in this process; they take longer than the runs."""
    monkeypatch.setattr(plots, "plot_run", lambda *_: [])


def told(x):
    """Returns something hashable that is the same for functions that compute the same.

    So they do if they are made of the same code, and all that it sees from outside is the same.
    """
    if isinstance(x, partial):
        return told(x.func), told(x.args), told(tuple(x.keywords.items()))
    if isinstance(x, FunctionType):
        seen = (cell.cell_contents for cell in x.__closure__ or ())
        defaults = x.__defaults__ or (), tuple((x.__kwdefaults__ or {}).items())
        return x.__code__, tuple(map(told, seen)), told(defaults)
    if isinstance(x, np.ndarray | jax.Array):
        return x.shape, str(x.dtype), np.asarray(x).tobytes()
    if type(x) in (tuple, list):
        return tuple(map(told, x))
    try:
        hash(x)
    except TypeError:
        return repr(x)
    return x


class Shared:
    """Calls a function once for arguments that are the same, and remembers what it returned."""

    def __init__(self, function):
        self._function, self._found = function, {}

    def __call__(self, *args, **kwargs):
        key = told(args), told(tuple(kwargs.items()))
        if key not in self._found:
            self._found[key] = self._function(*args, **kwargs)
        return self._found[key]


class SharedJit:
    """The module `jax`, but that what was jitted before is not traced again."""

    jit = Shared(jax.jit)

    def __getattr__(self, name):
        return getattr(jax, name)


MAKE, COMPILE, ACTING = Shared(ppo.Config.make), rollout.compile_acting, {}


def compile_acting(agent, params, row, *rest):
    """Does so once for parameters and rows of the same shapes."""
    shapes = tuple((x.shape, x.dtype.name) for x in jax.tree.leaves((params, row)))
    key = told(agent), shapes, told(rest)
    if key not in ACTING:
        ACTING[key] = COMPILE(agent, params, row, *rest)
    return ACTING[key]


@pytest.fixture(autouse=True, scope="module")
def _programs_are_shared():
    """Among runs in this process: most of their time went into tracing the same anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo.Config, "make", lambda self, spec: MAKE(self, spec))
        patch.setattr(rollout, "compile_acting", compile_acting)
        for module in (learning, evaluation):
            patch.setattr(module, "jax", SharedJit())
        yield


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """Returns the folder and the outcome of a toy that nothing happened to."""
    found = {}

    def run(toy):
        if toy not in found:
            folder = tmp_path_factory.mktemp("uninterrupted") / toy
            done(*run_of(toy, folder))
            found[toy] = folder, outcome(folder)
        return found[toy]

    return run


@pytest.fixture(scope="session")
def in_peace(tmp_path_factory):
    """Returns what the run of a second leaves that nothing happens to."""
    folder = tmp_path_factory.mktemp("in_peace") / "run"
    faulty.play(folder)
    return faulty.left(folder)
