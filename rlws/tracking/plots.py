"""Plots of a run, drawn while it goes and when it ends."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from rlws.tracking.columns import Columns, thinned
from rlws.tracking.files import read_metrics, replacing
from rlws.tracking.sink import Row, Run, Sink

_ROWS = 2000


class Plots(Sink):
    """Draws metrics.csv as `plots/*.png` at the end and each quarter of the budget.

    Not before `period` seconds of training have passed since the last time; of the rows about 2000,
    evaluations first.
    """

    def __init__(self, period: float = 60.0):
        self._period, self._quarter, self._drawn = period, 0, 0.0

    def start(self, run: Run) -> None:
        """Remembers which run it is."""
        self._run = run

    def log(self, row: Row) -> None:
        """Draws when due."""
        quarter = int(4 * self._run.fraction(row))
        seconds = row.get("seconds", 0.0)
        if quarter in range(self._quarter + 1, 4) and seconds - self._drawn >= self._period:
            self._quarter, self._drawn = quarter, seconds
            self._draw()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Draws the whole run."""
        self._draw()

    def _draw(self) -> None:
        columns = read_metrics(self._run.directory / "metrics.csv")
        plot_run(thinned(columns, _ROWS), self._run.directory, self._run.name)


def plot_run(columns: Columns, directory: str | os.PathLike, title: str = "") -> list[pathlib.Path]:
    """Draws return.png, losses.png (gradient norm too) and diagnostics.png (every other metric).

    Args:
      columns: equally long lists by name, `steps` among them, NaN where missing: `read_metrics`.
      directory: the run's; the files go to its `plots`.
      title: heading of each figure.

    Returns:
      The files written: a figure without data is left out.
    """
    from rlws.tracking.figures import run_figures

    paths = []
    for name, figure in run_figures(columns, title).items():
        paths.append(pathlib.Path(directory) / "plots" / f"{name}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        with replacing(paths[-1]) as temporary:
            figure.savefig(temporary)
    return paths
