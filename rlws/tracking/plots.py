"""Plots of a run, drawn while it goes and when it ends."""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from rlws.tracking.figures import Columns, panels_figure, return_figure
from rlws.tracking.files import read_metrics, replacing
from rlws.tracking.sink import Row, Run, Sink

_NOT_PANELS = {"steps", "episodes", "updates", "seconds"}
_ROWS = 2000


class Plots(Sink):
    """Writes `plots/*.png` at the end and each quarter of the budget, `period` seconds apart.

    Keeps at most 2000 rows: beyond, every second one goes, evaluations last.
    """

    def __init__(self, period: float = 60.0):  # seconds of training
        self._period = period
        self._rows: list[Row] = []
        self._quarter = 0
        self._drawn = 0.0

    def start(self, run: Run) -> None:
        """Takes over the rows of a resumed run from its metrics.csv."""
        self._run = run
        path = run.directory / "metrics.csv"
        if run.resumed_steps is not None and path.exists():
            columns = read_metrics(path)
            table = zip(*columns.values(), strict=True)
            rows = (dict(zip(columns, values, strict=True)) for values in table)
            self._rows = [row for row in rows if run.keeps(row["steps"])]

    def log(self, row: Row) -> None:
        """Keeps the row, and draws when due."""
        self._rows = thinned([*self._rows, dict(row)], _ROWS)
        quarter = int(4 * self._run.fraction(row))
        seconds = row.get("seconds", 0.0)
        if quarter in range(self._quarter + 1, 4) and seconds - self._drawn >= self._period:
            self._quarter, self._drawn = quarter, seconds
            self._draw()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Draws the whole run."""
        self._draw()

    def _draw(self) -> None:
        names = dict.fromkeys(name for row in self._rows for name in row)
        columns = {name: [row.get(name, math.nan) for row in self._rows] for name in names}
        plot_run(columns, self._run.directory, self._run.name)


def thinned(rows: list[Row], limit: int) -> list[Row]:
    """Returns `rows` if within `limit`, else every second and, where they fit, all evaluations."""
    if len(rows) <= limit:
        return rows
    kept = [
        row
        for index, row in enumerate(rows)
        if index % 2 == 0 or not math.isnan(row.get("evaluation_return_mean", math.nan))
    ]
    return kept if len(kept) < 0.75 * limit else rows[::2]


def plot_run(columns: Columns, directory: str | os.PathLike, title: str = "") -> list[pathlib.Path]:
    """Draws return.png, losses.png (gradient norm too) and diagnostics.png (every other metric).

    Args:
      columns: equally long lists by name, `steps` among them, NaN where missing: `read_metrics`.
      directory: the run's; the files go to its `plots`.
      title: heading of each figure.

    Returns:
      The files written: a figure without data is left out.
    """
    if not columns.get("steps"):
        return []
    losses, diagnostics = panel_names(columns)
    figures = {
        "return": return_figure(columns, title),
        "losses": panels_figure(columns, losses, title),
        "diagnostics": panels_figure(columns, diagnostics, title),
    }
    folder = pathlib.Path(directory) / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {folder / f"{name}.png": figure for name, figure in figures.items() if figure}
    for path, figure in paths.items():
        with replacing(path) as temporary:
            figure.savefig(temporary)
    return list(paths)


def panel_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns the losses (gradient norm too) and the other metrics among `names`."""
    shown = [
        name
        for name in names
        if name not in _NOT_PANELS and not name.startswith(("episode_return", "evaluation_return"))
    ]
    losses = [name for name in shown if name.endswith("loss") or name == "gradient_norm"]
    return losses, [name for name in shown if name not in losses]
