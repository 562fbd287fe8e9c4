"""What is reported of a comparison."""

from typing import Any, NamedTuple

import numpy as np

from rlws.analysis import statistics
from rlws.analysis.comparison.sequential import ALPHA, Look
from rlws.analysis.comparison.sides import Side
from rlws.analysis.comparison.verdict import Verdict


class Comparison(NamedTuple):
    """Two sides, their scores and the verdict."""

    sides: tuple[Side, Side]
    scores: tuple[np.ndarray, np.ndarray]  # [n] or [tasks, n]
    metric: str
    verdict: Verdict
    looks: list[Look]  # those of --until-decided; empty without
    plan: tuple[int, int] | None  # its seeds between looks, and at most
    notes: list[str]
    command: str  # that reproduces the verdict without training

    def measures(self) -> dict[str, Any]:
        """Returns the numbers, JSON-able."""
        ours, theirs = self.scores
        verdict = self.verdict._asdict() | {"text": self.text()}
        found: dict[str, Any] = {"metric": self.metric, "verdict": verdict}
        for side, scores in zip(self.sides, self.scores, strict=True):
            found[side.name] = {
                "label": side.label,
                "environments": list(side.tasks),
                "seeds": scores.shape[-1],
                "iqm": float(statistics.interquartile_mean(np.ravel(scores))),
                "iqm_interval": statistics.interval(scores),
                "mean": float(scores.mean()),
                "min": float(scores.min()),
                "max": float(scores.max()),
            }
        found["difference"] = found["A"]["iqm"] - found["B"]["iqm"]
        found["difference_interval"] = statistics.difference_interval(ours, theirs)
        found["improvement"] = statistics.probability_of_improvement(ours, theirs)
        found["improvement_interval"] = statistics.improvement_interval(ours, theirs)
        found["rank_sum_p"] = statistics.rank_sum_p(ours, theirs)
        if self.plan:
            found["until_decided"] = {
                "rule": "Lan-DeMets spending of the O'Brien-Fleming type, exact rank-sum p-values",
                "alpha": ALPHA,
                "batch": self.plan[0],
                "max_seeds": self.plan[1],
                "looks": [
                    {"seeds": x.seeds, "level": x.level, "p": x.verdict.p} for x in self.looks
                ],
            }
        return found | {"notes": self.notes, "command": self.command}

    def text(self) -> str:
        """Returns the verdict in words."""
        a, b = self.sides
        outcome, difference, (low, high), p, level, margin, enough = self.verdict
        coverage = f"{100 * (1 - level):.{1 if level > 0.001 else 4}f}".removesuffix(".0")
        ends = f"{coverage} % interval {low:.4g} to {high:.4g}"
        sure = f"(A - B is {difference:.4g}, {ends}; p = {p:.2g})"
        if outcome == "same":
            return f"no difference that matters: within {margin:.4g} {sure}"
        if outcome == "undecided" and not enough:
            counts = " and ".join(str(scores.shape[-1]) for scores in self.scores)
            return f"undecided: {counts} seeds are too few for any test {sure}"
        if outcome == "undecided":
            return f"undecided {sure}"
        better, worse = (a, b) if outcome == "A" else (b, a)
        return f"{outcome} is better: {better.label} beats {worse.label} {sure}"
