"""Live health of a run: what its numbers say in plain words, and when to stop."""

import copy
import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rlws.normalise import STATISTICS
from rlws.trainers import Progress

EARLY = 5  # rows before gradients count as unusual
USUAL = 100  # rows that make up what gradients usually are
SPIKE = 100.0  # times the median of those
LASTING = 20  # rows in a row, for what is only bad if it stays so


class NonFiniteError(FloatingPointError):
    """An update came to NaN or infinity: nothing sensible can come of the run."""

    status = 5  # of a process that ends because of it


def halted_text(report: Progress) -> str:
    """Returns what to say of a run that came to NaN."""
    return f"update {report.updates:,}, at {report.steps:,} steps, came to NaN or infinity"


@dataclasses.dataclass
class Health:
    """Follows the reports of one run; each warning is given once."""

    updates: int = 0  # at the last report
    entropy: float | None = None  # at first
    spread: float | None = None  # of actions, at first
    gradients: list[float] = dataclasses.field(default_factory=list)  # the newest `USUAL` norms
    lasted: dict[str, int] = dataclasses.field(default_factory=dict)  # rows in a row, by metric
    given: list[str] = dataclasses.field(default_factory=list)  # names of warnings

    def save(self) -> dict[str, Any]:
        """Returns what later warnings depend on, JSON-able."""
        return dataclasses.asdict(self)

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Goes on from what `save` returned."""
        vars(self).update(copy.deepcopy(dict(facts)))

    def measure(self, report: Progress) -> dict[str, float]:
        """Returns the norm of the parameters, without statistics of observations.

        Raises:
          NonFiniteError: one is NaN or infinite, by name.
        """
        leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(report.params))[0]
        for path, x in leaves:
            if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
                raise NonFiniteError(
                    f"parameter {jax.tree_util.keystr(path)} is not finite after "
                    f"{report.updates:,} updates ({report.steps:,} steps; it was at "
                    f"{self.updates:,}); lower the learning rate, or look at the loss with "
                    "`rlws diagnose`"
                )
        self.updates = report.updates
        learned = [x for path, x in leaves if STATISTICS not in jax.tree_util.keystr(path)]
        squares = (float(np.sum(np.square(x, dtype=np.float64))) for x in learned)
        return {"parameter_norm": math.sqrt(sum(squares))}

    def warnings(self, row: dict[str, Any]) -> list[str]:
        """Returns what has become noticeable with this row."""
        found = [(name, text) for name, text in self._rules(row) if name not in self.given]
        self.given += [name for name, _ in found]
        return [f"warning at {row['steps']:,} steps: {text}" for _, text in found]

    def _rules(self, row):
        get = lambda name: row.get(name, float("nan"))
        entropy, gradient = get("entropy"), get("gradient_norm")
        if self.entropy is None and np.isfinite(entropy):
            self.entropy = entropy
        if self.entropy is not None and 0.0 <= entropy < 0.02 * self.entropy:
            yield (
                "entropy",
                f"the policy hardly explores any more: entropy fell from {self.entropy:.2g} to "
                f"{entropy:.2g}; raise entropy_cost or lower learning_rate",
            )
        spread = get("action_spread")
        if self.spread is None and np.isfinite(spread):
            self.spread = spread
        if self._lasts(row, "action_spread", lambda x: x < 0.02 * (self.spread or 0.0)):
            yield (
                "spread",
                f"the policy does nearly the same in all states: action_spread fell from "
                f"{self.spread:.2g} to {spread:.2g} for {LASTING} rows; see whether actions stay "
                "at a bound, lower learning_rate, or scale rewards",
            )
        usual = statistics.median(self.gradients) if len(self.gradients) >= EARLY else 0.0
        if usual and gradient > SPIKE * usual:
            yield (
                "gradient",
                f"gradients are {gradient / usual:,.0f} times what they were: gradient_norm "
                f"{gradient:.3g}; lower learning_rate or max_gradient_norm, or scale rewards",
            )
        if np.isfinite(gradient):
            self.gradients = [*self.gradients, gradient][-USUAL:]
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
        if self._lasts(row, "explained_variance", lambda x: x < 0.0):
            yield (
                "value",
                f"values say less than one number for all states would: explained_variance "
                f"{row['explained_variance']:.2g}, below 0 in {LASTING} rows; change the learning "
                "rate of the value, raise value_cost, or bring rewards to about 1",
            )
        if self._lasts(row, "weight_0_fraction", lambda x: x > 0.9):
            yield (
                "padding",
                f"{row['weight_0_fraction']:.0%} of each batch has weight 0 and teaches nothing, "
                f"in {LASTING} rows; lower max_episode_length to what episodes need",
            )
        if row.get("update_norm") == 0.0:
            yield (
                "still",
                "parameters did not change although the learner ran; is the learning rate 0?",
            )

    def _lasts(self, row, name, bad):
        if name not in row:  # no update
            return False
        self.lasted[name] = self.lasted.get(name, 0) + 1 if bad(row[name]) else 0
        return self.lasted[name] >= LASTING
