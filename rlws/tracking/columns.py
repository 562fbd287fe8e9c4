"""The metrics of a run as columns, and what is worked out of them to be drawn."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rlws.settings import choose

# Equally long, "steps" among them, NaN where missing.
Columns = Mapping[str, Sequence[float] | np.ndarray]
SMOOTHING = 0.05  # of the run's steps


def series(columns: Columns, name: str, *others: str) -> list[np.ndarray]:
    """Returns steps, values and weights, [N] each, of a metric where it is finite, then others.

    Weights are the episodes a row stands for, where the metric is about episodes. The other metrics
    are those of the same rows, NaN where there is none.
    """
    nothing = [math.nan] * len(columns["steps"])
    wanted = ("steps", "episodes", name, *others)
    steps, episodes, values, *rest = (np.array(columns.get(key, nothing), float) for key in wanted)
    weights = np.ones(len(steps))
    if name.startswith("episode_"):
        weights = np.maximum(1.0, np.diff(np.nan_to_num(episodes), prepend=0.0))
    seen = np.isfinite(values)
    return [column[seen] for column in (steps, values, weights, *rest)]


def smoothing_window(steps: Iterable[float]) -> float:
    """Returns the steps to average over: 5 % of the run, to two digits so that labels are short."""
    return float(f"{SMOOTHING * max(steps):.2g}")


def rolling_mean(
    steps: np.ndarray, values: np.ndarray, weights: np.ndarray, window: float
) -> np.ndarray:
    """Returns, at each of the [N] rows, the weighted mean of values in (steps - window, steps]."""
    first = np.minimum(np.searchsorted(steps, steps - window, "right"), np.arange(len(steps)))
    spans = [slice(start, end + 1) for end, start in enumerate(first)]
    return np.array([np.average(values[span], weights=weights[span]) for span in spans])


def thinned(columns: Columns, limit: int) -> Columns:
    """Returns at most `limit` rows, equally far apart, and all evaluations unless they are many."""
    rows = len(columns["steps"])
    kept = np.arange(rows) % max(1, math.ceil(rows / limit)) == 0
    evaluated = np.isfinite(columns.get("evaluation_return_mean", [math.nan] * rows))
    if evaluated.sum() <= limit / 4:
        kept |= evaluated
    return {name: np.asarray(values)[kept] for name, values in columns.items()}


def signed(metric: str) -> tuple[str, float]:
    """Returns which column, or entry of a summary, is meant, and -1 where less is better: name:min.

    Raises:
      SettingError: something else is behind the colon.
    """
    name, _, way = metric.partition(":")
    choose(f"{metric}: after the colon", way or "max", ("max", "min"))
    return name, -1.0 if way == "min" else 1.0
