"""Live health of a run: what its numbers say in plain words, and when to stop."""

import statistics
from collections import deque
from typing import Any

import jax
import numpy as np

from rlws.trainers import Progress

EARLY = 5  # rows before gradients count as unusual
SPIKE = 100.0  # times the median gradient


class NonFiniteError(FloatingPointError):
    """Parameters are no numbers any more: nothing sensible can come of the run."""


class Health:
    """Follows the reports of one run; each warning is given once."""

    def __init__(self) -> None:
        self._params: list[np.ndarray] | None = None
        self._updates = 0
        self._entropy: float | None = None
        self._gradients: deque[float] = deque(maxlen=100)
        self._given = set[str]()

    def measure(self, report: Progress) -> dict[str, float]:
        """Returns the norm of the parameters and how far they moved since the last report.

        Raises:
          NonFiniteError: one is NaN or infinite, by name.
        """
        leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(report.params))[0]
        for path, x in leaves:
            if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
                raise NonFiniteError(
                    f"parameter {jax.tree_util.keystr(path)} is not finite after "
                    f"{report.updates:,} updates ({report.steps:,} steps; it was at "
                    f"{self._updates:,}); lower the learning rate, or look at the loss with "
                    "`rlws diagnose`"
                )
        now = [np.array(x) for _, x in leaves]
        before, self._params = self._params, now
        self._updates = report.updates
        norm = lambda arrays: float(np.sqrt(sum(float(np.sum(np.square(x))) for x in arrays)))
        found = {"parameter_norm": norm(now)}
        if before is not None and report.metrics:
            found["parameter_change"] = norm(x - y for x, y in zip(now, before, strict=True))
        return found

    def warnings(self, row: dict[str, Any]) -> list[str]:
        """Returns what has become noticeable with this row."""
        found = [(name, text) for name, text in self._rules(row) if name not in self._given]
        self._given |= {name for name, _ in found}
        return [f"warning at {row['steps']:,} steps: {text}" for _, text in found]

    def _rules(self, row):
        get = lambda name: row.get(name, float("nan"))
        entropy, gradient = get("entropy"), get("gradient_norm")
        if self._entropy is None and np.isfinite(entropy):
            self._entropy = entropy
        if self._entropy is not None and 0.0 <= entropy < 0.02 * self._entropy:
            yield (
                "entropy",
                f"the policy hardly explores any more: entropy fell from {self._entropy:.2g} to "
                f"{entropy:.2g}; raise entropy_cost or lower learning_rate",
            )
        usual = statistics.median(self._gradients) if len(self._gradients) >= EARLY else 0.0
        if usual and gradient > SPIKE * usual:
            yield (
                "gradient",
                f"gradients are {gradient / usual:,.0f} times what they were: gradient_norm "
                f"{gradient:.3g}; lower learning_rate or max_gradient_norm, or scale rewards",
            )
        if np.isfinite(gradient):
            self._gradients.append(gradient)
        if get("kl") > 0.1:
            yield (
                "kl",
                f"the policy changes much within one update: kl {row['kl']:.2g}; lower "
                "learning_rate or epochs, or set target_kl",
            )
        if get("dropped_fraction") > 0.3:
            yield (
                "dropped",
                f"{row['dropped_fraction']:.0%} of the experience is never learned from; lower "
                "num_envs or raise episodes_per_update",
            )
        if row.get("parameter_change") == 0.0:
            yield (
                "still",
                "parameters did not change although the learner ran; is the learning rate 0?",
            )
