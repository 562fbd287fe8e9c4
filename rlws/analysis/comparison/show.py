"""What a comparison leaves: a table, a verdict, and three files."""

import csv
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlws.analysis.comparison.measures import Comparison
from rlws.settings import SettingError
from rlws.tracking.files import replacing


def show(comparison: Comparison, measures: dict[str, Any], console: Console) -> None:
    """Prints the table, notes, the verdict and the command that reproduces it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", *(f"{side.name}: {side.label}" for side in comparison.sides)):
        table.add_column(Text(column), overflow="fold")
    for row in rows(comparison, measures):
        table.add_row(*map(Text, row))
    console.print(table)
    for note in comparison.notes:
        console.print(Text(f"note: {note}"))
    print(f"\n{comparison.text()}\n\n{comparison.command}", file=console.file, flush=True)


def rows(comparison: Comparison, measures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yields the lines of the table: what it is, of A, of B (empty: it is of both)."""
    a, b = measures["A"], measures["B"]
    yield "environment", ", ".join(a["environments"]), ", ".join(b["environments"])
    yield "seeds", str(a["seeds"]), str(b["seeds"])
    yield "interquartile mean", *(between(x["iqm"], x["iqm_interval"]) for x in (a, b))
    yield "mean", f"{a['mean']:.4g}", f"{b['mean']:.4g}"
    yield "lowest to highest", *(f"{x['min']:.4g} to {x['max']:.4g}" for x in (a, b))
    yield "difference A - B", between(measures["difference"], measures["difference_interval"]), ""
    chance = between(measures["improvement"], measures["improvement_interval"])
    yield "P(a seed of A is better)", chance, ""
    yield "rank-sum test, exact", f"p = {measures['rank_sum_p']:.2g}", ""


def between(value: float, interval: tuple[float, float]) -> str:
    """Returns a number with its interval."""
    low, high = interval
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"


def write(comparison: Comparison, measures: dict[str, Any], folder: pathlib.Path) -> None:
    """Writes comparison.json, comparison.csv (a line for each run) and comparison.png."""
    from rlws.analysis.comparison.figure import comparison_figure

    text = json.dumps(measures, indent=2)
    with replacing(folder / "comparison.json") as path:
        path.write_text(text + "\n", encoding="utf-8")
    with (
        replacing(folder / "comparison.csv") as path,
        open(path, "w", newline="", encoding="utf-8") as file,
    ):
        lines = csv.writer(file)
        lines.writerow(["side", "environment", "seed", "score", "directory"])
        for side, scores in zip(comparison.sides, comparison.scores, strict=True):
            for (environment, group), row in zip(
                side.tasks.items(), np.atleast_2d(scores), strict=True
            ):
                for result, score in zip(group.results, row, strict=True):
                    lines.writerow(
                        [side.name, environment, result.seed, float(score), result.directory]
                    )
    with replacing(folder / "comparison.png") as path:
        comparison_figure(comparison, measures).savefig(path)


def new_folder(output: pathlib.Path) -> None:
    """Makes the folder of a comparison.

    Raises:
      SettingError: it holds files, or cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise SettingError(
                f"--output must be new or empty, got {str(output)!r}, which holds files; choose "
                "another"
            )
        (output / "comparison.json").touch(exist_ok=False)  # fails here rather than after training
    except OSError as error:
        raise SettingError(
            f"--output must be a folder that can be written, got {str(output)!r}: "
            f"{error.strerror}; choose another"
        ) from None
