"""What a comparison came to: numbers, a table, a verdict in words, and three files."""

import csv
import functools
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlws.analysis import statistics
from rlws.analysis.comparison.sequential import ALPHA, Look
from rlws.analysis.comparison.sides import Side
from rlws.analysis.comparison.verdict import Verdict
from rlws.settings import SettingError
from rlws.tracking.files import replacing


@dataclass(frozen=True)
class Comparison:
    """Two sides, their scores and the verdict."""

    sides: tuple[Side, Side]
    scores: tuple[np.ndarray, np.ndarray]  # [n] or [tasks, n]
    metric: str
    verdict: Verdict
    looks: list[Look]  # those of --until-decided; empty without
    plan: tuple[int, int] | None  # its seeds between looks, and at most
    notes: list[str]
    command: str  # that reproduces the verdict without training

    @functools.cached_property
    def measures(self) -> dict[str, Any]:
        """The numbers, JSON-able."""
        ours, theirs = self.scores
        verdict = self.verdict._asdict() | {"text": self.text()}
        found: dict[str, Any] = {"metric": self.metric, "verdict": verdict}
        for side, scores in zip(self.sides, self.scores, strict=True):
            found[side.name] = {
                "label": side.label,
                "environments": list(side.tasks),
                "seeds": scores.shape[-1],
                "iqm": float(statistics.interquartile_mean(np.ravel(scores))),
                "iqm_interval": statistics.interval(scores),
                "mean": float(scores.mean()),
                "min": float(scores.min()),
                "max": float(scores.max()),
            }
        found["difference"] = found["A"]["iqm"] - found["B"]["iqm"]
        found["difference_interval"] = statistics.difference_interval(ours, theirs)
        found["improvement"] = statistics.probability_of_improvement(ours, theirs)
        found["improvement_interval"] = statistics.improvement_interval(ours, theirs)
        found["rank_sum_p"] = statistics.rank_sum_p(ours, theirs)
        if self.plan:
            found["until_decided"] = {
                "rule": "Lan-DeMets spending of the O'Brien-Fleming type, exact rank-sum p-values",
                "alpha": ALPHA,
                "batch": self.plan[0],
                "max_seeds": self.plan[1],
                "looks": [
                    {"seeds": x.seeds, "level": x.level, "p": x.verdict.p} for x in self.looks
                ],
            }
        return found | {"notes": self.notes, "command": self.command}

    def text(self) -> str:
        """Returns the verdict in words."""
        outcome, difference, (low, high), p, level, margin, enough = self.verdict
        coverage = f"{100 * (1 - level):.{1 if level > 0.001 else 4}f}".removesuffix(".0")
        ends = f"{coverage} % interval {low:.4g} to {high:.4g}"
        sure = f"(A - B is {difference:.4g}, {ends}; p = {p:.2g})"
        if outcome == "same":
            return f"no difference that matters: within {margin:.4g} {sure}"
        if outcome == "undecided" and not enough:
            counts = " and ".join(str(scores.shape[-1]) for scores in self.scores)
            return f"undecided: {counts} seeds are too few for any test {sure}"
        if outcome == "undecided":
            return f"undecided {sure}"
        better, worse = self.sides if outcome == "A" else self.sides[::-1]
        return f"{outcome} is better: {better.label} beats {worse.label} {sure}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yields the lines of the table: what it is, of A, of B (left out: it is of both)."""
        found = self.measures
        both = found["A"], found["B"]
        yield "environment", *(", ".join(side["environments"]) for side in both)
        yield "seeds", *(str(side["seeds"]) for side in both)
        yield "interquartile mean", *(_between(x["iqm"], x["iqm_interval"]) for x in both)
        yield "mean", *(f"{side['mean']:.4g}" for side in both)
        yield "lowest to highest", *(f"{x['min']:.4g} to {x['max']:.4g}" for x in both)
        yield "difference A - B", _between(found["difference"], found["difference_interval"])
        chance = _between(found["improvement"], found["improvement_interval"])
        yield "P(a seed of A is better)", chance
        yield "rank-sum test, exact", f"p = {found['rank_sum_p']:.2g}"

    def show(self, console: Console) -> None:
        """Prints the table, notes, the verdict and the command that reproduces it."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("", *(f"{side.name}: {side.label}" for side in self.sides)):
            table.add_column(Text(column), overflow="fold")
        for row in self.rows():
            table.add_row(*map(Text, row))
        console.print(table)
        for note in self.notes:
            console.print(Text(f"note: {note}"))
        print(f"\n{self.text()}\n\n{self.command}", file=console.file, flush=True)

    def write(self, folder: pathlib.Path) -> None:
        """Writes comparison.json, comparison.csv (a line for each run) and comparison.png."""
        from rlws.analysis.comparison.figure import comparison_figure

        with replacing(folder / "comparison.json") as path:
            path.write_text(json.dumps(self.measures, indent=2) + "\n", encoding="utf-8")
        with (
            replacing(folder / "comparison.csv") as path,
            open(path, "w", newline="", encoding="utf-8") as file,
        ):
            lines = csv.writer(file)
            lines.writerow(["side", "environment", "seed", "score", "directory"])
            for side, scores in zip(self.sides, self.scores, strict=True):
                # In the order of the scores, environment by environment.
                for result, score in zip(side.results, np.ravel(scores), strict=True):
                    run = result.environment, result.seed, float(score), result.directory
                    lines.writerow([side.name, *run])
        with replacing(folder / "comparison.png") as path:
            comparison_figure(self).savefig(path)


def _between(value: float, interval: tuple[float, float]) -> str:
    """Returns a number with its interval."""
    low, high = interval
    return f"{value:.4g} [{low:.4g}, {high:.4g}]"


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
