"""What runs came to, over the values of a setting they were swept over."""

import contextlib
import copy
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.figure import Figure

from rlws.analysis.curves import COLOURS
from rlws.analysis.results import Result
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.runs.differences import labels, settings, shown, shown_type
from rlws.settings import SettingError, choose
from rlws.tracking.figures import blank, literal, panel

Lines = Mapping[str, Mapping[str, np.ndarray]]  # by label, by value: the scores of seeds


def over(results: Iterable[Result], setting: str, metric: str) -> Lines:
    """Returns the scores at each value of a setting, apart for runs that differ otherwise, too.

    Raises:
      SettingError: no run has such a setting, or such an entry in its summary.
    """
    name = setting.replace("-", "_")
    lines: dict[str, dict[str, list[float]]] = {}
    others: dict[str, dict] = {}
    for result in results:
        value, rest = _without(result, name)
        score = result.number(metric)
        if not np.isfinite(score):
            raise SettingError(f"{result.directory} has no {metric} in its summary; leave it out")
        key = repr(sorted(settings(rest).items()))
        others.setdefault(key, rest)
        lines.setdefault(key, {}).setdefault(value, []).append(score)
    told = labels([*others.values()])
    return {
        text: {value: np.array(line[value]) for value in sorted(line, key=_order)}
        for text, line in zip(told, lines.values(), strict=True)
    }


def _without(result, name):
    """Returns the value of a setting, and the configuration without it."""
    rest = copy.deepcopy(result.config)
    path = name.split(".")
    if path[0] not in rest:  # of the agent
        path = ["agent", *path]
    holder = rest
    for part in path[:-1]:
        holder = holder.get(part) or {}
    choose(f"--over: {result.directory}", path[-1], holder)
    value = holder.pop(path[-1])
    return shown_type(value["type"]) if isinstance(value, dict) else shown(value), rest


def _order(value: str) -> tuple[float, str]:
    with contextlib.suppress(ValueError):
        return float(value), ""
    return np.inf, value


def settings_figure(lines: Lines, setting: str, metric: str) -> Figure:
    """Draws interquartile means with bootstrap intervals over seeds, and each seed."""
    figure = blank(6.4, 4.4)
    axes = panel(figure, 1, 1, 1)
    values = sorted(dict.fromkeys(value for line in lines.values() for value in line), key=_order)
    numbers = np.array([_order(value)[0] for value in values])
    spread = numbers.min() > 0 and numbers.max() > 10 * numbers.min()
    places = dict(
        zip(values, numbers if np.isfinite(numbers).all() else range(len(values)), strict=True)
    )
    for i, (label, line) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        x = [places[value] for value in line]
        middle = np.array([interquartile_mean(scores) for scores in line.values()])
        low, high = np.transpose([interval(scores) for scores in line.values()])
        bars = np.maximum([middle - low, high - middle], 0)
        text = literal(label or "interquartile mean over seeds, 95 %")
        axes.errorbar(x, middle, bars, fmt="o-", capsize=3, color=colour, lw=1.5, label=text)
        for place, scores in zip(x, line.values(), strict=True):
            axes.plot(np.full(len(scores), place), scores, ".", color=colour, alpha=0.4)
    if np.isfinite(numbers).all():
        axes.set_xscale("log" if spread else "linear")
    axes.set_xticks([*places.values()], [literal(value) for value in values])
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.set_xlabel(literal(setting))
    axes.set_ylabel(literal(metric.replace("_", " ")))
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    return figure
