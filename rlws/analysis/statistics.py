"""Statistics of a few scores, one for each seed; of several tasks together, [tasks, seeds].

Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice",
https://arxiv.org/abs/2108.13264, recommends these: the interquartile mean, the probability of
improvement, and percentile bootstrap intervals that are stratified, so resampled within each task.
All intervals are of 95 % unless told otherwise, and the same each time for the same `seed`. With
few seeds the bootstrap is too narrow: of 10 normal scores it covers 92 %. So whether two sides
differ at all is for `rank_sum_p` to say, which is exact.
"""

import functools
import math

import numpy as np

RESAMPLES = 10_000
_NORMAL = 1.959964  # the 97.5 % quantile of the standard normal distribution

Interval = tuple[float, float]


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the mean of the middle half: a quarter is cut off each end, rounded down."""
    ordered = np.sort(scores, axis=axis)
    count = ordered.shape[axis]
    middle = np.arange(count // 4, count - count // 4)
    return np.take(ordered, middle, axis=axis).mean(axis=axis)


def interval(scores: np.ndarray, seed: int = 0) -> Interval:
    """Returns the bootstrap interval of the interquartile mean of scores [n] or [tasks, n].

    Tasks are pooled: it is the mean of the middle half of all tasks * n scores.
    """
    return _percentiles(_resampled_means(scores, np.random.default_rng(seed)))


def difference_interval(
    ours: np.ndarray, theirs: np.ndarray, seed: int = 0, coverage: float = 0.95
) -> Interval:
    """Returns the bootstrap interval of the interquartile mean of ours less that of theirs.

    Args:
      ours: scores, [n] or [tasks, n].
      theirs: scores that have nothing to do with ours, [m] or [tasks, m].
      seed: decides the resamples.
      coverage: how often the interval is to hold the truth.
    """
    random = np.random.default_rng(seed)
    samples = _resampled_means(ours, random) - _resampled_means(theirs, random)
    return _percentiles(samples, coverage)


def curve_band(curves: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns low [P] and high [P], pointwise, for the interquartile mean of curves [n, P].

    A whole curve is resampled, so its points stay together; 1000 times, for speed.
    """
    count = len(curves)
    chosen = np.random.default_rng(seed).integers(count, size=(1000, count))
    means = [interquartile_mean(column[chosen]) for column in curves.T]
    low, high = np.percentile(means, [2.5, 97.5], axis=1)
    return low, high


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns [P]: which share of scores [n] or [tasks, n] is above each of the thresholds [P]."""
    above = np.atleast_2d(scores)[:, :, None] > thresholds
    return above.mean(axis=(0, 1))


def profile_band(
    scores: np.ndarray, thresholds: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns low [P] and high [P], pointwise, for the performance profile; 1000 resamples."""
    tasks = np.atleast_2d(scores)
    random = np.random.default_rng(seed)
    chosen = random.integers(tasks.shape[1], size=(1000, *tasks.shape))
    samples = np.take_along_axis(tasks[None], chosen, axis=2)
    shares = [performance_profile(sample, thresholds) for sample in samples]
    low, high = np.percentile(shares, [2.5, 97.5], axis=0)
    return low, high


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns how often a score of ours, [n] or [tasks, n], beats one of theirs, [m] or [tasks, m].

    Ties count half. With several tasks it is the mean over tasks.
    """
    return float(_wins(ours, theirs).mean())


def improvement_interval(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Interval:
    """Returns the bootstrap interval of the probability of improvement, resampling both sides."""
    wins, random = _wins(ours, theirs), np.random.default_rng(seed)
    tasks, *counts = wins.shape
    # How often each score is drawn says as much as which are, without an array of all the pairs.
    drawn = (
        random.multinomial(count, np.full(count, 1 / count), (RESAMPLES, tasks)) / count
        for count in counts
    )
    return _percentiles(np.einsum("tnm,rtn,rtm->r", wins, *drawn, optimize=True) / tasks)


def rank_sum_p(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the exact two-sided p-value of Wilcoxon's rank-sum test; ties are no trouble.

    It is how often a random division of all the scores, [n] and [m], into n and m is at least as
    lopsided as this one. Several tasks, [tasks, n] and [tasks, m], are divided each by itself, and
    their rank sums added up. Streitberg and Roehmel, 1986, "Exact distributions for permutation and
    rank tests", Statistical Software Newsletter 12.
    """
    ours, theirs = np.atleast_2d(ours), np.atleast_2d(theirs)
    chances, observed, expected = np.ones(1), 0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        ranks = _doubled_ranks(np.concatenate([a, b]))
        observed += sum(ranks[: len(a)])
        expected += sum(ranks) * len(a) / len(ranks)
        chances = np.convolve(chances, _rank_sums(tuple(sorted(ranks)), len(a)))
    distance = np.abs(np.arange(len(chances)) - expected)
    return min(1.0, float(chances[distance >= abs(observed - expected) - 1e-6].sum()))


def smallest_p(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the p-value of `rank_sum_p` if all of ours beat all of theirs."""
    tasks, n = np.atleast_2d(ours).shape
    return min(1.0, 2.0 * math.comb(n + np.shape(theirs)[-1], n) ** -float(tasks))


def _doubled_ranks(scores: np.ndarray) -> list[int]:
    """Returns twice the rank of each score, whole even where equal ones share a mean rank."""
    below = (scores[None] < scores[:, None]).sum(axis=1)
    equal = (scores[None] == scores[:, None]).sum(axis=1)
    return (2 * below + equal + 1).tolist()


@functools.lru_cache(256)
def _rank_sums(ranks: tuple[int, ...], count: int) -> np.ndarray:
    """Returns how likely each sum is, from 0 on, of `count` of the ranks drawn at random."""
    ways = np.zeros((count + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank]
    return ways[count] / math.comb(len(ranks), count)


def wilson_interval(successes: int, count: int) -> Interval:
    """Returns Wilson's score interval of a proportion.

    Wilson, 1927, "Probable inference, the law of succession, and statistical inference", Journal of
    the American Statistical Association 22.
    """
    share, spread = successes / count, _NORMAL**2 / count
    centre = share + spread / 2
    half_width = np.sqrt(spread * (share * (1 - share) + spread / 4))
    low, high = (centre - half_width) / (1 + spread), (centre + half_width) / (1 + spread)
    return max(0.0, float(low)), min(1.0, float(high))


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns [tasks, n, m]: 1 where ours is higher, 1/2 where they are equal, else 0."""
    ours, theirs = np.atleast_2d(ours), np.atleast_2d(theirs)
    return (np.sign(ours[:, :, None] - theirs[:, None, :]) + 1) / 2


def _resampled_means(scores: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns [RESAMPLES]: of scores [n] or [tasks, n], drawn with replacement in each task."""
    tasks = np.atleast_2d(scores)
    chosen = random.integers(tasks.shape[1], size=(RESAMPLES, *tasks.shape))
    samples = np.take_along_axis(tasks[None], chosen, axis=2)
    return interquartile_mean(samples.reshape(RESAMPLES, -1))


def _percentiles(samples: np.ndarray, coverage: float = 0.95) -> Interval:
    tail = 50 * (1 - coverage)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
