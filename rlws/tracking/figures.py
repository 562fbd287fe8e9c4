"""Figures of a run from its metric columns; matplotlib without pyplot, so without global state."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from rlws.tracking.columns import Columns, rolling_mean, series, smoothing_window

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#8C8C8C"
_NOT_PANELS = {"steps", "episodes", "updates", "seconds"}
compact = EngFormatter(sep="")  # 25k for 25,000


def run_figures(columns: Columns, title: str = "") -> dict[str, Figure]:
    """Returns the figures of a run that there is data for: return, losses and diagnostics.

    The norm of gradients is among the losses, every other metric among the diagnostics.
    """
    if not len(columns.get("steps", ())):
        return {}
    shown = [
        name
        for name in columns
        if name not in _NOT_PANELS and not name.startswith(("episode_return", "evaluation_return"))
    ]
    losses = [name for name in shown if name.endswith("loss") or name == "gradient_norm"]
    others = [name for name in shown if name not in losses]
    figures = {
        "return": return_figure(columns, title),
        "losses": panels_figure(columns, losses, title),
        "diagnostics": panels_figure(columns, others, title),
    }
    return {name: figure for name, figure in figures.items() if figure}


def return_figure(columns: Columns, title: str = "") -> Figure | None:
    """Draws returns over environment steps; None where there are none.

    The bold line weights each row by the episodes it stands for, so it is the mean return of all
    episodes finished in the window.
    """
    trained = series(columns, "episode_return", "episode_return_min", "episode_return_max")
    tested = series(columns, "evaluation_return_mean", "evaluation_return_std")
    if not (trained[0].size or tested[0].size):
        return None
    figure = blank(6.4, 4.0)
    axes = panel(figure, 1, 1, 1)
    if trained[0].size:
        steps, mean, weights, low, high = trained
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.12, lw=0, label="min to max")
        _curve(axes, steps, mean, weights, smoothing_window(columns["steps"]))
    if tested[0].size:
        steps, mean, _, deviation = tested
        bars, label = np.nan_to_num(deviation), "evaluation, mean ± std"
        axes.errorbar(
            steps, mean, bars, fmt="o", ms=5, lw=1.2, capsize=2.5, color=VERMILLION, label=label
        )
    describe_panel(figure, "episode return", title)
    return figure


def panels_figure(columns: Columns, names: Sequence[str], title: str = "") -> Figure | None:
    """Draws a small panel for each of `names` that has values; None where none has."""
    names = [name for name in names if np.isfinite(columns.get(name, [])).any()]
    if not names:
        return None
    across = 2 if len(names) == 4 else min(3, len(names))
    down = math.ceil(len(names) / across)
    window = smoothing_window(columns["steps"])
    figure = blank(max(4.0, 3.2 * across), 2.4 * down + 0.5)
    for place, name in enumerate(names, 1):
        axes = panel(figure, down, across, place)
        steps, values, _ = series(columns, name)
        _curve(axes, steps, values, np.ones(len(steps)), window)
        if values.min() > 0 and values.max() > 100 * values.min():
            axes.set_yscale("log")
        elif np.abs(values).max() >= 10_000:
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_title(literal(name.replace("_", " ")), loc="left", fontsize=10)
    figure.suptitle(literal(title), x=0.01, ha="left", fontsize=11)
    figure.supxlabel(f"environment steps (bold: mean of the last {compact(window)})", fontsize=9)
    return figure


def literal(text: str) -> str:
    """Returns what matplotlib shows as `text`: without mathematics, nor a label it keeps back."""
    return " " * text.startswith("_") + text.replace("$", r"\$")


def blank(width: float, height: float) -> Figure:
    """Returns a figure of this size in inches, with nothing in it."""
    return Figure((width, height), dpi=150, layout="constrained")


def panel(figure: Figure, down: int, across: int, place: int) -> Axes:
    """Adds axes at a place, counted from 1, in a grid; across is what may be steps."""
    axes = figure.add_subplot(down, across, place)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(color=GREY, labelsize=9)
    axes.grid(axis="y", color=GREY, alpha=0.2, lw=0.6)
    return axes


def describe_panel(figure: Figure, metric: str, title: str) -> None:
    """Names what the only panel of a figure shows; its lines below it, in two columns if short."""
    (axes,) = figure.axes
    axes.set_xlabel("environment steps")
    axes.set_ylabel(literal(metric.replace("_", " ")))
    axes.set_title(literal(title), loc="left", fontsize=11)
    lines, texts = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, texts), default=0) <= 40 else 1
    figure.legend(
        lines, texts, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def _curve(
    axes: Axes, steps: np.ndarray, values: np.ndarray, weights: np.ndarray, window: float
) -> None:
    smooth = rolling_mean(steps, values, weights, window)
    marker = "." if len(steps) < 10 else ""
    axes.plot(
        steps, values, color=BLUE, alpha=0.35, lw=0.8, marker=marker, label="mean per logged row"
    )
    axes.plot(steps, smooth, color=BLUE, lw=2.0, label=f"mean of the last {compact(window)} steps")
