"""Live health of a run: what its numbers say in plain words, and when to stop."""

import copy
import dataclasses
import math
import statistics
from collections import defaultdict
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
WELL = 0.75  # of the way from the lowest return of a row to the highest: what is well by now
# What is no fault of a policy that does as well as it ever did: it need not explore, and what it
# is worth may be the same in all states.
IDLE = {"entropy", "spread", "value"}


# By name, with metrics of the row and what was known before.
WARNINGS = {
    "entropy": "the policy hardly explores any more: entropy fell from {first[entropy]:.2g} to "
    "{entropy:.2g}; raise entropy_cost or lower learning_rate",
    "spread": "the policy does nearly the same in all states: action_spread fell from "
    "{first[spread]:.2g} to {action_spread:.2g} for {rows} rows; see whether actions stay at a "
    "bound, lower learning_rate, or scale rewards",
    "gradient": "gradients are {times:,.0f} times what they were: gradient_norm "
    "{gradient_norm:.3g}; lower learning_rate or max_gradient_norm, or scale rewards",
    "kl": "the policy changes much within one update: kl {kl:.2g}; lower learning_rate or epochs, "
    "or set target_kl",
    "dropped": "{dropped_fraction:.0%} of the experience is never learned from; lower num_envs, or "
    "raise how many episodes an update takes",
    "value": "values say less than one number for all states would: explained_variance "
    "{explained_variance:.2g}, below 0 in {rows} rows; change the learning rate of the value, "
    "raise value_cost, or bring rewards to about 1",
    "padding": "{weight_0_fraction:.0%} of each batch has weight 0 and teaches nothing, in {rows} "
    "rows; lower max_episode_length to what episodes need",
    "deaf": "no gradient reaches the parameters: gradient_norm is 0 in {rows} rows; see whether "
    "the loss depends on them, and whether all rewards are the same",
    "still": "parameters did not change although the learner ran; is the learning rate 0, or "
    "annealed to it?",
}


NAN = "came to NaN or infinity"


class NonFiniteError(FloatingPointError):
    """An update came to NaN or infinity: nothing sensible can come of the run."""

    status = 5  # of a process that ends because of it


def halted_text(report: Progress) -> str:
    """Returns what to say of a run that came to NaN."""
    return f"update {report.updates:,}, at {report.steps:,} steps, {NAN}"


@dataclasses.dataclass
class Health:
    """Follows the reports of one run; each warning is given once."""

    updates: int = 0  # at the last report
    entropy: float | None = None  # at first
    spread: float | None = None  # of actions, at first
    returns: list[float] = dataclasses.field(default_factory=list)  # of the newest `LASTING` rows
    extremes: list[float] = dataclasses.field(default_factory=list)  # the lowest and the highest
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
        now = defaultdict(lambda: math.nan, row)  # which is neither above nor below anything
        if self.entropy is None and np.isfinite(now["entropy"]):
            self.entropy = now["entropy"]
        if self.spread is None and np.isfinite(now["action_spread"]):
            self.spread = now["action_spread"]
        usual = statistics.median(self.gradients) if len(self.gradients) >= EARLY else 0.0
        times = now["gradient_norm"] / (usual or math.nan)
        if np.isfinite(now["gradient_norm"]):
            self.gradients = [*self.gradients, now["gradient_norm"]][-USUAL:]
        noticed = {
            "entropy": 0.0 <= now["entropy"] < 0.02 * (self.entropy or 0.0),
            "spread": self._lasts(row, "action_spread", lambda x: x < 0.02 * (self.spread or 0.0)),
            "gradient": times > SPIKE,
            "kl": now["kl"] > 0.1,
            "dropped": now["dropped_fraction"] > 0.3,
            "value": self._lasts(row, "explained_variance", lambda x: x < 0.0),
            "padding": self._lasts(row, "weight_0_fraction", lambda x: x > 0.9),
            "deaf": self._lasts(row, "gradient_norm", lambda x: x == 0.0),
            "still": now["update_norm"] == 0.0 != now["gradient_norm"],
        }
        idle = IDLE if self._does_well(now["episode_return"]) else set()
        new = [name for name, bad in noticed.items() if bad and name not in idle.union(self.given)]
        self.given += new
        facts = {**row, "first": vars(self), "times": times, "rows": LASTING}
        texts = [WARNINGS[name].format_map(facts) for name in new]
        return [f"warning at {row['steps']:,} steps: {text}" for text in texts]

    def _does_well(self, found: float) -> bool:
        """Returns whether returns are near the best so far, and were lower once."""
        if np.isfinite(found):
            self.returns = [*self.returns, found][-LASTING:]
            self.extremes = [min([*self.extremes, found]), max([*self.extremes, found])]
        low, high = self.extremes or (0.0, 0.0)
        return low < high and statistics.median(self.returns) >= low + WELL * (high - low)

    def _lasts(self, row, name, bad):
        if name not in row:  # no update
            return False
        self.lasted[name] = self.lasted.get(name, 0) + 1 if bad(row[name]) else 0
        return self.lasted[name] >= LASTING
