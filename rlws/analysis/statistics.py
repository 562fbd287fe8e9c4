"""Statistics of a few scores, one for each seed; of several tasks together, [tasks, seeds].

Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice",
https://arxiv.org/abs/2108.13264, recommends these: the interquartile mean, the probability of
improvement, and percentile bootstrap intervals that are stratified, so resampled within each task.
All intervals are of 95 % unless told otherwise, and the same each time for the same `seed`. With
few seeds the bootstrap is too narrow: of 10 normal scores it covers 92 %. So whether two sides
differ at all is for `rank_sum_p` to say, which is exact.

What SciPy has and what it has not is in README.md of this folder; the tests compare with it.
"""

import functools
import math

import numpy as np

RESAMPLES = 10_000

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
    return _percentiles(_pooled_mean(_resampled(scores, np.random.default_rng(seed))))


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
    samples = _pooled_mean(_resampled(ours, random)) - _pooled_mean(_resampled(theirs, random))
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
    samples = _resampled(scores, np.random.default_rng(seed), 1000)
    shares = [performance_profile(sample, thresholds) for sample in samples]
    low, high = np.percentile(shares, [2.5, 97.5], axis=0)
    return low, high


def probability_of_improvement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns how often a score of ours, [n] or [tasks, n], beats one of theirs, [m] or [tasks, m].

    Ties count half. With several tasks it is the mean over tasks.
    """
    return float(_wins(np.atleast_2d(ours), np.atleast_2d(theirs)))


def improvement_interval(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Interval:
    """Returns the bootstrap interval of the probability of improvement, resampling both sides."""
    random = np.random.default_rng(seed)
    return _percentiles(_wins(_resampled(ours, random), _resampled(theirs, random)))


def rank_sum_p(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the exact two-sided p-value of Wilcoxon's rank-sum test; ties are no trouble.

    It is how often a random division of all the scores, [n] and [m], into n and m is at least as
    lopsided as this one; of hundreds by the normal distribution, to which that comes near. Several
    tasks, [tasks, n] and [tasks, m], are divided each by itself, and their rank sums added up.
    Streitberg and Roehmel, 1986, "Exact distributions for permutation and rank tests", Statistical
    Software Newsletter 12.
    """
    from scipy import stats

    # Of either side the sum is as far from what is expected; of the smaller it is sooner known.
    few, many = sorted((np.atleast_2d(ours), np.atleast_2d(theirs)), key=lambda x: x.shape[1])
    both = np.concatenate([few, many], axis=1)
    # Twice the ranks are whole even where equal scores share a mean rank.
    ranks = (2 * stats.rankdata(both, axis=1)).astype(int)
    n, total = few.shape[1], both.shape[1]
    away = abs(ranks[:, :n].sum() - n * ranks.mean(axis=1).sum())
    if n * total**3 > EXACT:
        variance = n * (total - n) / (total - 1) * ranks.var(axis=1).sum()
        return float(2 * stats.norm.sf(away / np.sqrt(variance))) if variance else 1.0
    chances = np.ones(1)
    for own in ranks:
        chances = np.convolve(chances, _rank_sums(tuple(sorted(own.tolist())), n))
    distance = np.abs(np.arange(len(chances)) - n * ranks.mean(axis=1).sum())
    return min(1.0, float(chances[distance >= away - 1e-6].sum()))


def smallest_p(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Returns the p-value of `rank_sum_p` if all of ours beat all of theirs."""
    tasks, n = np.atleast_2d(ours).shape
    m = np.shape(theirs)[-1]
    divisions = math.lgamma(n + m + 1) - math.lgamma(n + 1) - math.lgamma(m + 1)
    return min(1.0, 2.0 * math.exp(-tasks * divisions))


EXACT = 10**9  # additions that exact chances are worth, about a second


@functools.lru_cache(256)
def _rank_sums(ranks: tuple[int, ...], count: int) -> np.ndarray:
    """Returns how likely each sum is, from 0 on, of `count` of the ranks drawn at random."""
    ways = np.zeros((count + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank]
    return ways[count] / math.comb(len(ranks), count)


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns [...], the share of pairs that ours [..., tasks, n] wins, by Mann and Whitney's U."""
    from scipy import stats

    n, m = ours.shape[-1], theirs.shape[-1]
    ranks = stats.rankdata(np.concatenate([ours, theirs], axis=-1), axis=-1)
    wins = ranks[..., :n].sum(axis=-1) - n * (n + 1) / 2
    return wins.mean(axis=-1) / (n * m)


def _resampled(
    scores: np.ndarray, random: np.random.Generator, count: int | None = None
) -> np.ndarray:
    """Returns [count, tasks, n]: scores [n] or [tasks, n], with replacement in each task."""
    tasks = np.atleast_2d(scores)
    chosen = random.integers(tasks.shape[1], size=(count or RESAMPLES, *tasks.shape))
    return np.take_along_axis(tasks[None], chosen, axis=2)


def _pooled_mean(samples: np.ndarray) -> np.ndarray:
    return interquartile_mean(samples.reshape(len(samples), -1))


def _percentiles(samples: np.ndarray, coverage: float = 0.95) -> Interval:
    tail = 50 * (1 - coverage)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
