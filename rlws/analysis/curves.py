"""Learning curves of several seeds as one: a line and a band."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlws.analysis.results import Result, column
from rlws.analysis.statistics import curve_band, interquartile_mean
from rlws.settings import SettingError
from rlws.tracking.columns import rolling_mean, smoothing_window
from rlws.tracking.figures import blank, describe_panel, literal, panel

POINTS = 200  # of a curve
# Okabe and Ito's colours but yellow, which is hard to see on white; blue and vermillion first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
STYLES = ("-", "--", ":", "-.")

Series = tuple[np.ndarray, np.ndarray, np.ndarray]  # steps, values, weights: [N] each


class Curve(NamedTuple):
    """One metric of several seeds of one setting."""

    label: str
    steps: np.ndarray  # [P]
    values: np.ndarray  # [seeds, P]

    @property
    def middle(self) -> np.ndarray:
        """The interquartile mean over seeds, [P]."""
        return interquartile_mean(self.values, axis=0)


def aligned(label: str, series: Sequence[Series]) -> Curve:
    """Returns seeds on one grid of steps: from where all have begun to where the first ends.

    Each is smoothed as in the plot of a single run, by the mean of the last 5 % of the steps.
    """
    window = smoothing_window(steps.max() for steps, _, _ in series)
    first = max(steps[0] for steps, _, _ in series)
    last = min(steps[-1] for steps, _, _ in series)
    grid = np.linspace(min(first, last), last, POINTS)
    values = [
        np.interp(grid, steps, rolling_mean(steps, values, weights, window))
        for steps, values, weights in series
    ]
    return Curve(label, grid, np.stack(values))


def curve_of(label: str, results: Iterable[Result], metric: str) -> Curve | None:
    """Returns a metric of those runs that have it; None where none has, as no episode ended."""
    series = []
    for result in results:
        with contextlib.suppress(SettingError):
            series.append(column(result, metric))
    return aligned(label, series) if series else None


def curves_figure(curves: Sequence[Curve], metric: str, title: str = "") -> Figure:
    """Draws curves over each other, with bootstrap bands where there is more than one seed."""
    figure = blank(6.4, 4.4)
    draw_curves(panel(figure, 1, 1, 1), curves)
    describe_panel(figure, metric, title)
    return figure


def draw_curves(axes: Axes, curves: Sequence[Curve | None]) -> None:
    """Draws curves, each with the number of its seeds in the label; None leaves a colour out."""
    for i, curve in enumerate(curves):
        if curve is None:
            continue
        colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
        if len(curve.values) > 1:
            low, high = curve_band(curve.values)
            axes.fill_between(curve.steps, low, high, color=colour, alpha=0.2, lw=0)
        label = literal(f"{curve.label} ({seeds(len(curve.values))})")
        axes.plot(curve.steps, curve.middle, style, color=colour, lw=2.0, label=label)
    axes.set_xlabel("environment steps")


def seeds(count: int) -> str:
    """Returns "1 seed" or "n seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"
