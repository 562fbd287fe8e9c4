"""Statistics of a few scores, one for each seed; of several tasks together, [tasks, seeds].

Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical precipice",
https://arxiv.org/abs/2108.13264, recommends these: the interquartile mean, the probability of
improvement, and percentile bootstrap intervals that are stratified, so resampled within each task.
All intervals are of 95 %, and the same each time for the same `seed`. With few seeds the bootstrap
is too narrow: of 10 normal scores it covers 92 %.
"""

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


def difference_interval(ours: np.ndarray, theirs: np.ndarray, seed: int = 0) -> Interval:
    """Returns the bootstrap interval of the interquartile mean of ours less that of theirs.

    Args:
      ours: scores, [n] or [tasks, n].
      theirs: scores that have nothing to do with ours, [m] or [tasks, m].
      seed: decides the resamples.
    """
    random = np.random.default_rng(seed)
    return _percentiles(_resampled_means(ours, random) - _resampled_means(theirs, random))


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


def _percentiles(samples: np.ndarray) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)
