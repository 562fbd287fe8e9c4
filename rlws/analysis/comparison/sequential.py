"""Looking at scores again and again while seeds are added, without being fooled by it.

Whoever adds seeds until two sides differ will find a difference: with eight looks, each at 5 %, in
one of six pairs that do not differ. An alpha-spending rule divides the 5 % among the looks:

  Lan and DeMets, 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70.
  O'Brien and Fleming, 1979, "A multiple testing procedure for clinical trials", Biometrics 35.

By a fraction t of the seeds, 2 - 2 Phi(z / sqrt(t)) of the error is spent on either side, where z
is the 98.75 % quantile: next to nothing early and most at the end, so the last look is nearly as
sharp as a single one. That gives each look a level of its own, which the exact p-value of the
rank-sum test on the seeds so far is held against. Rank sums of growing samples have, in the limit,
the independent increments that the levels are computed for (Jennison and Turnbull, 2000, "Group
Sequential Methods with Applications to Clinical Trials").
"""

import functools
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from rlws.analysis.comparison.verdict import Verdict, judge

ALPHA = 0.05  # two-sided, over all looks together


class Look(NamedTuple):
    """What the first seeds of both sides said."""

    seeds: int  # of each side
    level: float  # what the p-value was held against
    verdict: Verdict


def look_sizes(batch: int, maximum: int) -> list[int]:
    """Returns how many seeds of each side there are at each look."""
    return [*range(batch, maximum, batch), maximum]


def replay(
    ours: np.ndarray, theirs: np.ndarray, batch: int, maximum: int, margin: float = 0.0
) -> list[Look]:
    """Returns the looks at scores in the order of their seeds, up to the first that decides.

    It depends on nothing but its arguments. Whether seeds were there at the start or were added
    makes no difference, so anybody who has the scores comes to the same verdict.

    Args:
      ours: scores by seed, [n] or [tasks, n].
      theirs: scores by seed, [m] or [tasks, m].
      batch: seeds between looks.
      maximum: seeds of the last look, to be chosen before the first.
      margin: the largest difference that does not matter.
    """
    looks = []
    sizes = look_sizes(batch, maximum)
    for size, level in zip(sizes, levels(tuple(s / maximum for s in sizes)), strict=True):
        if size > min(np.shape(ours)[-1], np.shape(theirs)[-1]):
            break
        verdict = judge(ours[..., :size], theirs[..., :size], margin, level)
        looks.append(Look(size, level, verdict))
        if verdict.decided:
            break
    return looks


def spent(fraction: float, alpha: float = ALPHA) -> float:
    """Returns the two-sided error that may be spent by a fraction of the seeds."""
    quantile = -NormalDist().inv_cdf(alpha / 4)
    return 2 * math.erfc(quantile / math.sqrt(2 * fraction))


@functools.cache
def levels(fractions: tuple[float, ...], alpha: float = ALPHA) -> tuple[float, ...]:
    """Returns the two-sided level of each look, at growing fractions of the seeds, the last 1.

    Armitage, McPherson and Rowe's recursion, 1969, "Repeated significance tests on accumulating
    data", Journal of the Royal Statistical Society A 132. `density` is that of a Brownian motion
    which no look so far has stopped, at `nodes`.
    """
    steps = np.sqrt(np.diff(fractions, prepend=0.0))
    gauss, weights = np.polynomial.legendre.leggauss(64 + int(8 / steps.min()))
    nodes, weighted = np.zeros(1), np.ones(1)  # density times the weights of its integral
    found, before = [], 0.0
    for fraction, step in zip(fractions, steps, strict=True):
        total = spent(fraction, alpha)
        bound = _bound(nodes, weighted, step, total - before)
        found.append(math.erfc(bound / math.sqrt(2 * fraction)))
        distances = (bound * gauss[:, None] - nodes) / step
        density = np.exp(-(distances**2) / 2) @ weighted / (step * math.sqrt(2 * math.pi))
        nodes, weighted, before = bound * gauss, density * weights * bound, total
    return tuple(found)


def _bound(nodes: np.ndarray, weighted: np.ndarray, step: float, allowed: float) -> float:
    """Returns the height that the next step passes, up or down, with the probability allowed."""
    from scipy import optimize, special

    passes = lambda height: special.erfc((height - nodes) / (step * math.sqrt(2))) @ weighted
    return optimize.brentq(lambda height: passes(height) - allowed, 0.0, 10.0)
