"""The picture of a comparison: learning curves, final scores, performance profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rlws.analysis.curves import COLOURS, curve_of, draw_curves
from rlws.analysis.statistics import performance_profile, profile_band
from rlws.tracking.figures import blank, literal, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rlws.analysis.comparison.outcome import Comparison

CURVE = "episode_return"
THRESHOLDS = 101  # of a performance profile


def comparison_figure(comparison: Comparison) -> Figure:
    """Draws a panel of learning curves for each environment, then scores and profile."""
    environments = [*comparison.sides[0].tasks]
    across = len(environments) + 2
    figure = blank(3.6 * across, 3.8)
    for place, environment in enumerate(environments, 1):
        axes = panel(figure, 1, across, place)
        axes.set_title(literal(f"return in {environment}"), loc="left", fontsize=10)
        runs = {side.name: side.tasks[environment].results for side in comparison.sides}
        draw_curves(axes, [curve_of(name, found, CURVE) for name, found in runs.items()])
    _scores(panel(figure, 1, across, across - 1), comparison)
    _profile(panel(figure, 1, across, across), comparison)
    handles = [figure.axes[-1].lines[i] for i in range(2)]
    names = [
        literal(f"{side.name}: {side.label} ({scores.shape[-1]} seeds)")
        for side, scores in zip(comparison.sides, comparison.scores, strict=True)
    ]
    figure.legend(handles, names, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def _scores(axes: Axes, comparison: Comparison) -> None:
    """Draws each score, and the interquartile means with their intervals."""
    random = np.random.default_rng(0)
    for i, (side, scores) in enumerate(zip(comparison.sides, comparison.scores, strict=True)):
        measures = comparison.measures[side.name]
        middle, (low, high) = measures["iqm"], measures["iqm_interval"]
        places = i + 0.15 + random.uniform(0.0, 0.2, scores.size)
        axes.plot(places, np.ravel(scores), "o", ms=4, color=COLOURS[i], alpha=0.5, mew=0)
        # Of another statistic an interval may lie aside; of this one, rounding only.
        ends = np.maximum(0.0, [[middle - low], [high - middle]])
        axes.errorbar([i - 0.1], [middle], ends, fmt="D", ms=6, lw=2, capsize=4, color=COLOURS[i])
    axes.set_xlim(-0.5, 1.6)
    axes.set_xticks([0, 1], [side.name for side in comparison.sides])
    axes.set_title("scores, IQM with 95 % interval", loc="left", fontsize=10)
    axes.set_ylabel(literal(comparison.metric.replace("_", " ")), fontsize=9)


def _profile(axes: Axes, comparison: Comparison) -> None:
    together = np.concatenate([np.ravel(scores) for scores in comparison.scores])
    low, high = together.min(), together.max()
    margin = 0.05 * (high - low) or 1.0  # to see where both sides begin and end
    thresholds = np.linspace(low - margin, high + margin, THRESHOLDS)
    for colour, scores in zip(COLOURS, comparison.scores, strict=False):
        band = profile_band(scores, thresholds)
        axes.fill_between(thresholds, *band, step="post", color=colour, alpha=0.2, lw=0)
        shares = performance_profile(scores, thresholds)
        axes.step(thresholds, shares, where="post", color=colour, lw=2)
    axes.set_ylim(-0.03, 1.03)
    axes.set_title("share of seeds above a score", loc="left", fontsize=10)
    axes.set_xlabel("score")
