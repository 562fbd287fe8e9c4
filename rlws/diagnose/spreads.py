"""Checks of what keeps a policy spread out: a bonus for entropy, or a temperature that is tuned."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from rlws.agent import AgentConfig
from rlws.diagnose.check import Check, locate
from rlws.learner import LearnerState
from rlws.settings import SettingError, change
from rlws.types import EnvironmentSpec, Trajectory

TEMPERATURES = ("temperature", "alpha")  # in the name of the parameter


def check_spreads(
    config: AgentConfig, spec: EnvironmentSpec, state: LearnerState, batch: Trajectory
) -> Iterator[Check]:
    """Yields how an update changes with the settings that say how much entropy there shall be.

    They are found by the names the zoo gives them: `entropy_cost` and `target_entropy`.
    """
    component = locate(config.make(spec).learner, "loss")

    def learned(name: str, *values: float) -> list[tuple[LearnerState, Any]]:
        """Returns what an update comes to with each value; nothing where there is no choice."""
        if name not in {field.name for field in dataclasses.fields(config)}:
            return []
        try:
            agents = [change(config, {name: value}).make(spec) for value in values]
        except SettingError:  # it means something else to this agent
            return []
        return [jax.jit(a.learner.learn)(state, batch, jax.random.key(0)) for a in agents]

    if found := learned("entropy_cost", 0.0, 1.0):
        (_, before), (_, after) = found
        entropy = float(before.get("entropy", 0.0))
        more = float(after["loss"] - before["loss"])
        fine = more * entropy < 0
        if abs(entropy) > 0.01:  # of continuous actions it may have either sign
            yield Check(
                "learner: entropy",
                "a bonus for entropy lowers the loss",
                "less" if entropy > 0 else "more, as entropy is negative",
                f"{more:+.3g} with entropy {entropy:.3g}",
                "pass" if fine else "fail",
                component,
                "a loss is minimised: subtract entropy_cost * entropy from it, once",
            )
    if found := learned("target_entropy", -10.0, 10.0):
        low, high = (_temperatures(after.params) for after, _ in found)
        rises = all(x < y for x, y in zip(low, high, strict=True))
        if low:
            yield Check(
                "learner: temperature",
                "it rises where entropy is below its target, and falls where it is above",
                "higher for a higher target",
                "higher" if rises else "not higher",
                "pass" if rises else "fail",
                component,
                "minimise -log(temperature) * (log_prob + target_entropy), log_prob constant",
            )


def _temperatures(params: Any) -> list[float]:
    named = lambda path: any(name in jax.tree_util.keystr(path) for name in TEMPERATURES)
    leaves = jax.tree.leaves_with_path(params)
    return [float(x) for path, x in leaves if named(path) and x.ndim == 0]
