"""Which of two sides is better, if any: what the scores allow to say."""

from typing import Literal, NamedTuple

import numpy as np

from rlws.analysis.statistics import (
    RESAMPLES,
    Interval,
    difference_interval,
    interquartile_mean,
    rank_sum_p,
    smallest_p,
)

Outcome = Literal["A", "B", "same", "undecided"]
_TAIL = 20  # resamples outside an interval, without which its ends are too uncertain


class Verdict(NamedTuple):
    """What a comparison of two sides came to."""

    outcome: Outcome
    difference: float  # of the interquartile means, A - B
    interval: Interval  # of it, with coverage 1 - level
    p: float  # exact, two-sided: of scores that come from one distribution
    level: float  # the error allowed
    margin: float  # the largest difference that does not matter
    enough: bool  # whether so few seeds can decide anything at this level

    @property
    def decided(self) -> bool:
        return self.outcome != "undecided"


def judge(ours: np.ndarray, theirs: np.ndarray, margin: float, level: float = 0.05) -> Verdict:
    """Returns the verdict on scores of A, [n] or [tasks, n], and B, [m] or [tasks, m].

    - "same": the interval of the difference lies within the margin.
    - "A" or "B": the exact test rejects at the level, and the interval lies on that side of 0. The
      test keeps the error, as the bootstrap of a few seeds is too narrow; the interval says that it
      is the interquartile mean that differs, and not only the ranks.
    - "undecided": all else, as whenever no scores of so few seeds could make the test reject.
    """
    difference = float(_pooled_mean(ours) - _pooled_mean(theirs))
    low, high = difference_interval(ours, theirs, coverage=1 - level)
    p = rank_sum_p(ours, theirs)
    enough = smallest_p(ours, theirs) <= level
    outcome: Outcome = "undecided"
    if enough and level * RESAMPLES >= _TAIL and -margin <= low and high <= margin:
        outcome = "same"
    elif p <= level and (low > 0 or high < 0):
        outcome = "A" if low > 0 else "B"
    return Verdict(outcome, difference, (low, high), p, level, margin, enough)


def _pooled_mean(scores: np.ndarray) -> np.ndarray:
    return interquartile_mean(np.ravel(scores))
