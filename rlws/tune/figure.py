"""Which settings mattered: a measure, and one picture."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from rlws.analysis.curves import COLOURS
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.runs.differences import shown
from rlws.settings import SettingError, describe
from rlws.tracking.figures import blank, literal, panel
from rlws.tune.methods import Job
from rlws.tune.spaces import Space
from rlws.tune.tpe import distributions, optuna

Pairs = Sequence[tuple[Job, float]]
BINS, EACH = 6, 4  # of a range, at most; trials in each, at least


def comparable(pairs: Pairs) -> list[tuple[Job, float]]:
    """Returns the jobs that most trials have in common: all to the same steps, the most there are.

    Of later ones a search has chosen the trials, so they say little of what it did not choose.
    """
    steps = [job.steps for job, _ in pairs]
    count = max(steps, key=lambda x: (steps.count(x), x))
    return [pair for pair in pairs if pair[0].steps == count]


def importance(spaces: Sequence[Space], pairs: Pairs) -> tuple[str, dict[str, float]]:
    """Returns which share of what scores differ by is due to each setting, and how it was found.

    By functional ANOVA (Hutter et al., 2014, "An efficient approach for assessing hyperparameter
    importance") where Optuna and its forest are installed; else by bins, each setting by itself.
    """
    scored = [(job, score) for job, score in pairs if math.isfinite(score)]
    scores = np.array([score for _, score in scored])
    if len(scores) < 2 * EACH or np.ptp(scores) == 0:
        return "too few scores that differ", {space.name: math.nan for space in spaces}
    try:
        return "fANOVA", _fanova(spaces, scored)
    except (ImportError, SettingError):
        return "bins", {space.name: _explained(_bins(space, scored), scores) for space in spaces}


def _fanova(spaces, scored):
    package, known = optuna(), distributions(spaces)
    from sklearn import ensemble  # noqa: F401  # the forest

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that parts of it are experimental
        study = package.create_study(direction="maximize")
        for job, score in scored:
            params = {
                s.name: s.choices.index(x) if s.choices else x
                for s in spaces
                for x in [job.settings[s.name]]
            }
            made = package.trial.create_trial(params=params, distributions=known, value=score)
            study.add_trial(made)
        evaluator = package.importance.FanovaImportanceEvaluator(seed=0)
        found = package.importance.get_param_importances(study, evaluator=evaluator)
    return {space.name: float(found.get(space.name, math.nan)) for space in spaces}


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
    return max(0.0, float((total - within - (len(groups) - 1) * within / free) / total))


def study_figure(spaces: Sequence[Space], pairs: Pairs, metric: str, title: str = "") -> Figure:
    """Draws a panel for each setting, the most important first: scores over its values."""
    common = comparable(pairs)
    measure, shares = importance(spaces, common)
    order = sorted(spaces, key=lambda space: -np.nan_to_num(shares[space.name], nan=-1.0))
    across = min(3, len(order))
    down = -(-len(order) // across)
    figure = blank(3.8 * across, 3.2 * down + 0.8)
    longest = max(job.steps for job, _ in pairs)
    ended = [pair for pair in pairs if pair[0].steps == longest > common[0][0].steps]
    for place, space in enumerate(order, 1):
        axes = panel(figure, down, across, place)
        share = shares[space.name]
        told = "" if math.isnan(share) else f": {share:.0%} of the variance ({measure})"
        name = space.name.removeprefix("agent.")
        axes.set_title(literal(name + told), loc="left", fontsize=10)
        _draw(axes, space, common, ended)
        if (place - 1) % across == 0:
            axes.set_ylabel(literal(metric.replace("_", " ")), fontsize=9)
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=11)
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _draw(axes: Axes, space: Space, common: Pairs, ended: Pairs) -> None:
    random = np.random.default_rng(0)

    def places(pairs):
        if not space.choices:
            return np.array([job.settings[space.name] for job, _ in pairs], float)
        found = [space.choices.index(job.settings[space.name]) for job, _ in pairs]
        return np.array(found) + random.uniform(-0.15, 0.15, len(found))

    scored = [pair for pair in common if math.isfinite(pair[1])]
    scores = np.array([score for _, score in scored])
    label = f"each trial at {common[0][0].steps:,} steps"
    x, bins = places(scored), _bins(space, scored)
    axes.plot(x, scores, "o", ms=4, alpha=0.45, mew=0, color=COLOURS[0], label=label)
    groups = [bins == b for b in np.unique(bins)]
    middle = np.array([interquartile_mean(scores[group]) for group in groups])
    low, high = np.transpose([interval(scores[group]) for group in groups])
    mean = np.exp if space.log else lambda x: x
    centre = [float(mean(np.mean(np.log(x[g]) if space.log else x[g]))) for g in groups]
    if space.choices:
        centre = [*np.unique(bins)]
        axes.set_xticks(
            range(len(space.choices)), [literal(shown(describe(value))) for value in space.choices]
        )
    bars = np.maximum([middle - low, high - middle], 0.0)
    axes.errorbar(
        *(centre, middle, bars),
        fmt="-o" if not space.choices else "o",
        color="black",
        lw=1.5,
        ms=4,
        capsize=3,
        label="interquartile mean of a bin, 95 %",
    )
    if ended:
        finite = [pair for pair in ended if math.isfinite(pair[1])]
        label = f"those that went on, at {ended[0][0].steps:,} steps"
        axes.plot(places(finite), [s for _, s in finite], "D", ms=5, color=COLOURS[1], label=label)
    if failed := [pair for pair in common if not math.isfinite(pair[1])]:
        bottom = np.full(len(failed), scores.min())
        axes.plot(places(failed), bottom, "x", color="grey", ms=6, label="came to NaN")
    if space.log:
        axes.set_xscale("log")
    elif not space.choices:
        axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
