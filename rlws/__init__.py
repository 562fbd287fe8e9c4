"""RL Workshop: write a reinforcement learning algorithm once, run it everywhere JAX does."""

import importlib
from typing import Any

# What scripts and notebooks use; nothing heavy is imported until it is asked for.
_WHERE = {
    "Checkpoints": "runs.experiment",
    "Evaluation": "runs.experiment",
    "Experiment": "runs.experiment",
    "diagnose": "diagnose.doctor",
    "load": "runs.policy",
    "main": "commands.cli",
    "run": "runs.launch",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"rlws.{_WHERE[name]}"), name)
