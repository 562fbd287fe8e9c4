"""Checks of what keeps a policy spread out: a bonus for entropy, or a temperature that is tuned."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.subject import Subject
from rlws.learner import LearnerState

ENTROPY = Question(
    "learner: entropy",
    "a bonus for entropy lowers the loss",
    advice="a loss is minimised: subtract entropy_cost * entropy from it, once",
)
TEMPERATURE = Question(
    "learner: temperature",
    "it rises where entropy is below its target, and falls where it is above",
    "higher for a higher target",
    "minimise -log(temperature) * (log_prob + target_entropy), log_prob constant",
)
TEMPERATURES = ("temperature", "alpha")  # in the name of the parameter


def check_entropy(subject: Subject) -> Iterator[Check]:
    """Yields how an update changes with the settings that say how much entropy there shall be.

    They are found by the names the zoo gives them: `entropy_cost` and `target_entropy`.
    """
    component = locate(subject.agent.learner, "loss")
    found = _learned(subject, "entropy_cost", 0.0, 1.0)
    if found and "loss" in found[0][1]:
        (_, before), (_, after) = found
        entropy = float(before.get("entropy", 0.0))
        more = float(after["loss"] - before["loss"])
        if abs(entropy) > 0.01:  # of continuous actions it may have either sign
            expected = "less" if entropy > 0 else "more, as entropy is negative"
            got = f"{more:+.3g} with entropy {entropy:.3g}"
            yield ENTROPY.answer(more * entropy < 0, got, component, expected)
    if found := _learned(subject, "target_entropy", -10.0, 10.0):
        low, high = (_temperatures(after.params) for after, _ in found)
        rises = all(x < y for x, y in zip(low, high, strict=True))
        if low:
            yield TEMPERATURE.answer(rises, "higher" if rises else "not higher", component)


def _learned(subject: Subject, name: str, *values: float) -> list[tuple[LearnerState, Any]]:
    """Returns what an update comes to with each value; nothing where there is no choice."""
    learns = [subject.learn_with(name, value) for value in values]
    if None in learns:
        return []
    # The update in which the policy's turn comes, if it does not come in each.
    before = getattr(subject.config, "policy_period", 1) - 1
    state = subject.state.learner._replace(updates=jnp.int32(before))
    return [learn(state, subject.batches[0], jax.random.key(0)) for learn in learns]


def log_temperature(params: Any) -> str:
    """Returns what the logarithm of a learned temperature is called among parameters, "": none."""
    known = (x for x in params if any(y in x for y in TEMPERATURES) and jnp.ndim(params[x]) == 0)
    first = next(known, "")
    return first if "log" in first else ""


def _temperatures(params: Any) -> list[float]:
    named = lambda path: any(name in jax.tree_util.keystr(path) for name in TEMPERATURES)
    leaves = jax.tree.leaves_with_path(params)
    return [float(x) for path, x in leaves if named(path) and x.ndim == 0]
