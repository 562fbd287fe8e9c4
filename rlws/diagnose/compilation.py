"""Compiling what runs for some seconds only: soon, and not for speed."""

import functools
from collections.abc import Callable
from typing import Any

import jax

_SOON = {"xla_backend_optimization_level": 0}


def jit(function: Callable, **kwargs: Any) -> Any:
    """Returns `jax.jit(function, **kwargs)`, on a CPU compiled in two thirds of the time."""
    return jax.jit(function, compiler_options=_options(), **kwargs)


@functools.cache
def _options() -> dict[str, int] | None:
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_SOON)()
    except Exception:  # another XLA, whose options are others
        return None
    return _SOON
