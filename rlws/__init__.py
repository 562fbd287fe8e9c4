"""RL Workshop: write a reinforcement learning algorithm once, run it everywhere JAX does."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Nothing heavy until it is asked for.
    if name == "diagnose":
        from rlws.diagnose import diagnose

        return diagnose
    if name == "load":
        from rlws.policy import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
