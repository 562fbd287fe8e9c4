"""Statistics of a few scores, one for each seed."""

import numpy as np

RESAMPLES = 10_000


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the mean of the middle half: a quarter is cut off each end, rounded down."""
    ordered = np.sort(scores, axis=axis)
    count = ordered.shape[axis]
    middle = np.arange(count // 4, count - count // 4)
    return np.take(ordered, middle, axis=axis).mean(axis=axis)


def interval(scores: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the interquartile mean of scores [n]."""
    random = np.random.default_rng(seed)
    samples = random.choice(scores, (RESAMPLES, len(scores)))
    low, high = np.percentile(interquartile_mean(samples), [2.5, 97.5])
    return float(low), float(high)
