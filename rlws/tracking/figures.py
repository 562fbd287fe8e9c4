"""Figures of a run from its metric columns; matplotlib without pyplot, so without global state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, Sequence[float]]

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#8C8C8C"
SMOOTHING = 0.05  # of the run's steps


def smoothing_window(steps: np.ndarray) -> float:
    """Returns the steps to average over: 5 % of the run, to two digits so that labels are short."""
    return float(f"{SMOOTHING * steps.max():.2g}")


def rolling_mean(
    steps: np.ndarray, values: np.ndarray, weights: np.ndarray, window: float
) -> np.ndarray:
    """Returns, at each of the [N] rows, the weighted mean of values in (steps - window, steps]."""
    first = np.minimum(np.searchsorted(steps, steps - window, "right"), np.arange(len(steps)))
    spans = [slice(start, end + 1) for end, start in enumerate(first)]
    return np.array([np.average(values[span], weights=weights[span]) for span in spans])


def return_figure(columns: Columns, title: str = "") -> Figure | None:
    """Draws returns over environment steps; None where there are none.

    The bold line weights each row by the episodes it stands for, so it is the mean return of all
    episodes finished in the window.
    """
    steps = np.asarray(columns["steps"], float)
    mean = _column(columns, "episode_return", len(steps))
    evaluation = _column(columns, "evaluation_return_mean", len(steps))
    seen, tested = np.isfinite(mean), np.isfinite(evaluation)
    if not (seen.any() or tested.any()):
        return None
    window = smoothing_window(steps)
    figure = _figure(6.4, 4.0)
    axes = _axes(figure, 1, 1, 1)
    if seen.any():
        low = _column(columns, "episode_return_min", len(steps))[seen]
        high = _column(columns, "episode_return_max", len(steps))[seen]
        axes.fill_between(steps[seen], low, high, color=BLUE, alpha=0.12, lw=0, label="min to max")
        episodes = np.nan_to_num(_column(columns, "episodes", len(steps)))
        weights = np.maximum(1.0, np.diff(episodes, prepend=0.0))[seen]
        _curve(axes, steps[seen], mean[seen], weights, window)
    if tested.any():
        deviation = np.nan_to_num(_column(columns, "evaluation_return_std", len(steps)))
        _evaluations(axes, steps[tested], evaluation[tested], deviation[tested])
    axes.set_ylabel("episode return")
    axes.set_xlabel("environment steps")
    axes.set_title(literal(title), loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def panels_figure(columns: Columns, names: Sequence[str], title: str = "") -> Figure | None:
    """Draws a small panel for each of `names` that has values; None where none has."""
    from matplotlib.ticker import EngFormatter

    steps = np.asarray(columns["steps"], float)
    series = {name: _column(columns, name, len(steps)) for name in names}
    series = {name: values for name, values in series.items() if np.isfinite(values).any()}
    if not series:
        return None
    across = 2 if len(series) == 4 else min(3, len(series))
    down = math.ceil(len(series) / across)
    window = smoothing_window(steps)
    figure = _figure(max(4.0, 3.2 * across), 2.4 * down + 0.5)
    for place, (name, values) in enumerate(series.items(), 1):
        axes = _axes(figure, down, across, place)
        seen = np.isfinite(values)
        _curve(axes, steps[seen], values[seen], np.ones(seen.sum()), window)
        if values[seen].min() > 0 and values[seen].max() > 100 * values[seen].min():
            axes.set_yscale("log")
        elif np.abs(values[seen]).max() >= 10_000:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_title(literal(name.replace("_", " ")), loc="left", fontsize=10)
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=11)
    figure.supxlabel(f"environment steps (bold: mean of the last {_compact(window)})", fontsize=9)
    return figure


def literal(text: str) -> str:
    """Returns what matplotlib shows as `text`: without mathematics, nor a label it keeps back."""
    return " " * text.startswith("_") + text.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=150, layout="constrained")


def _axes(figure: Figure, down: int, across: int, place: int) -> Axes:
    from matplotlib.ticker import EngFormatter

    axes = figure.add_subplot(down, across, place)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelsize=9)
    axes.grid(axis="y", color=GREY, alpha=0.2, lw=0.6)
    return axes


def _curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, weights: np.ndarray, window: float
) -> None:
    smooth = rolling_mean(steps, values, weights, window)
    marker = "." if len(steps) < 10 else ""
    axes.plot(
        steps, values, color=BLUE, alpha=0.35, lw=0.8, marker=marker, label="mean per logged row"
    )
    axes.plot(steps, smooth, color=BLUE, lw=2.0, label=f"mean of the last {_compact(window)} steps")


def _evaluations(axes: Axes, steps: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> None:
    label = "evaluation, mean ± std"
    axes.errorbar(
        steps, mean, deviation, fmt="o", ms=5, lw=1.2, capsize=2.5, color=VERMILLION, label=label
    )


def _column(columns: Columns, name: str, rows: int) -> np.ndarray:
    return np.asarray(columns.get(name, [math.nan] * rows), float)


def _compact(value: float) -> str:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")(value)
