"""Which settings mattered: a measure, and one picture."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
    StrMethodFormatter,
)

from rlws.analysis.curves import COLOURS
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.runs.differences import shown
from rlws.settings import describe
from rlws.tracking.figures import blank, literal, panel
from rlws.tune.methods import Job
from rlws.tune.spaces import Space

Pairs = Sequence[tuple[Job, float]]
BINS, EACH = 6, 4  # of a range, at most; trials in each, at least
DECADES = 100  # how many times its beginning an axis ends, for powers of ten to say where


def comparable(pairs: Pairs) -> list[tuple[Job, float]]:
    """Returns the jobs that most trials have in common, all to the same steps, the fewest of such.

    Of later ones a search has chosen the settings, so they say little of what it did not choose.
    """
    steps = [job.steps for job, _ in pairs]
    count = max(steps, key=lambda x: (steps.count(x), -x))
    return [pair for pair in pairs if pair[0].steps == count]


class Share(NamedTuple):
    """Which share of what scores differ by goes with a setting."""

    share: float  # of the variance, between bins of the setting, less what chance puts there
    p: float  # how often scores that were dealt out anew come to more

    @property
    def text(self) -> str:
        if math.isnan(self.share):
            return ""
        chance = ", no more than chance" if self.p > 0.05 else ""
        return f"\n{self.share:.0%} of the variance{chance}"


def importance(spaces: Sequence[Space], pairs: Pairs) -> dict[str, Share]:
    """Returns the share of each setting by itself, by name; NaN where there are too few scores."""
    scored = [(job, score) for job, score in pairs if math.isfinite(score)]
    scores = np.array([score for _, score in scored])
    if len(scores) < 2 * EACH or np.ptp(scores) == 0:
        return {space.name: Share(math.nan, math.nan) for space in spaces}
    random = np.random.default_rng(0)
    dealt = [random.permutation(scores) for _ in range(1000)]
    found = {}
    for space in spaces:
        bins = _bins(space, scored)
        share = _explained(bins, scores)
        p = float(np.mean([_explained(bins, other) >= share for other in dealt]))
        found[space.name] = Share(max(0.0, share), p)
    return found


def _bins(space, pairs):
    """Returns a number for each trial, equal for those with equal or near values."""
    values = [job.settings[space.name] for job, _ in pairs]
    if space.choices:
        return np.array([space.choices.index(value) for value in values])
    count = min(BINS, max(1, len(values) // EACH))
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    found = ranks * count // len(values)
    if space.whole:  # equal ones together, in the first of their bins
        first = {v: min(b for u, b in zip(values, found, strict=True) if u == v) for v in values}
        found = np.array([first[value] for value in values])
    return found


def _explained(bins, scores):
    """Returns the share of the variance between bins, less what chance puts there (epsilon^2)."""
    groups = [scores[bins == b] for b in np.unique(bins)]
    total = np.sum((scores - scores.mean()) ** 2)
    within = sum(np.sum((x - x.mean()) ** 2) for x in groups)
    free = len(scores) - len(groups)
    if free < 1:
        return math.nan
    return float((total - within - (len(groups) - 1) * within / free) / total)


def study_figure(spaces: Sequence[Space], pairs: Pairs, metric: str, title: str = "") -> Figure:
    """Draws a panel for each setting, the most important first: scores over its values."""
    common = comparable(pairs)
    shares = importance(spaces, common)
    order = sorted(spaces, key=lambda space: -np.nan_to_num(shares[space.name].share))
    across = min(3, len(order))
    down = -(-len(order) // across)
    figure = blank(3.8 * across, 3.2 * down + 0.8)
    longest = max(job.steps for job, _ in pairs)
    ended = [pair for pair in pairs if pair[0].steps == longest > common[0][0].steps]
    for place, space in enumerate(order, 1):
        axes = panel(figure, down, across, place)
        told = space.name.removeprefix("agent.") + shares[space.name].text
        axes.set_title(literal(told), loc="left", fontsize=10)
        _draw(axes, space, common, ended)
        if (place - 1) % across == 0:
            axes.set_ylabel(literal(metric.replace("_", " ")), fontsize=9)
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=11)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    columns = min(2, across)  # beside each other they are wider than a panel
    figure.legend(
        handles, texts, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return figure


def _draw(axes: Axes, space: Space, common: Pairs, ended: Pairs) -> None:
    random = np.random.default_rng(0)

    def place(pairs):
        values = [job.settings[space.name] for job, _ in pairs]
        if not space.choices:
            return np.array(values, float)
        return [space.choices.index(x) + random.uniform(-0.15, 0.15) for x in values]

    def points(pairs, marker, colour, label):
        found = [pair for pair in pairs if math.isfinite(pair[1])]
        heights = np.array([score for _, score in found])
        how = dict(color=colour, label=f"{label} {pairs[0][0].steps:,} steps", alpha=0.6, mew=0)
        axes.plot(place(found), heights, marker, ms=5, **how)
        return found, heights

    scored, scores = points(common, "o", COLOURS[0], "each trial at")
    bins = _bins(space, scored)
    groups = [bins == b for b in np.unique(bins)]
    middle = np.array([interquartile_mean(scores[group]) for group in groups])
    low, high = np.transpose([interval(scores[group]) for group in groups])
    bars = np.maximum([middle - low, high - middle], 0.0)
    ordered = np.array(place(scored))
    centre = [*np.unique(bins)] if space.choices else [np.median(ordered[g]) for g in groups]
    label = "interquartile mean of a bin, 95 %"
    line = "o" if space.choices else "o-"
    axes.errorbar(centre, middle, bars, fmt=line, color="black", ms=4, capsize=3, label=label)
    if ended:
        points(ended, "D", COLOURS[1], "those that went on, at")
    if failed := [pair for pair in common if not math.isfinite(pair[1])]:
        axes.plot(place(failed), [scores.min()] * len(failed), "x", color="grey", label="failed")
    if space.choices:
        names = [literal(shown(describe(value))) for value in space.choices]
        axes.set_xticks(range(len(names)), names)
    elif space.log:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        if high < DECADES * low:  # powers of ten would be one tick or none
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
