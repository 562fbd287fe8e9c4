"""Compiling small programs, of which the host calls one a step, so that they run in one thread."""

import functools
from collections.abc import Callable
from typing import Any

import jax

# XLA has independent operations computed by several threads at once. Of some microseconds each, on
# a CPU, they take longer to hand over than to compute; scheduled to save memory, they take turns.
_IN_ORDER = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def sequential(function: Callable, **kwargs: Any) -> Any:
    """Returns `jax.jit(function, **kwargs)`, compiled to run one operation after the other."""
    return jax.jit(function, compiler_options=_options(), **kwargs)


@functools.cache
def _options() -> dict[str, str] | None:
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=_IN_ORDER)()
    except Exception:  # another XLA, whose options are others
        return None
    return _IN_ORDER
