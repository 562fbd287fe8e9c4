"""Progress of a run in words: the fields of the terminal's line."""

import math
import numbers
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

from rlws.tracking.sink import Row, Run


class Progress:
    """Turns the latest row into text fields of steady width."""

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic):
        self.run = run
        self._clock = clock
        self._row: dict[str, float] = {}  # each metric as last known
        self._first: Row = {}
        self._end: float | None = None  # clock time at which the budget should be spent

    @property
    def fraction(self) -> float:
        """Share of the budget used, in [0, 1]; 0 before the first row."""
        return self.run.fraction(self._row) if self._row else 0.0

    def update(self, row: Row) -> None:
        """Takes a row; the return stays that of the last row in which an episode finished."""
        self._row |= {name: value for name, value in row.items() if not math.isnan(value)}
        self._first = self._first or row
        # Measured from the first row, so that compilation does not count.
        unit = self.run.unit
        done = row.get(unit, 0) - self._first.get(unit, 0)
        seconds = row.get("seconds", 0.0) - self._first.get("seconds", 0.0)
        if done > 0:
            left = max(0, self.run.budget - row.get(unit, 0)) * seconds / done
            self._end = self._clock() + left

    def fields(self) -> dict[str, str]:
        """Returns percent, steps, episodes, return, speed and left, and workers if there are."""
        speed = float(self._row.get("steps_per_second", math.nan))
        left = "--:--" if self._end is None else duration(self._end - self._clock())
        fields = {
            "percent": f"{math.floor(100 * self.fraction + 1e-9):3d}%",
            "steps": self._count("steps", 9),
            "episodes": self._count("episodes", 7),
            "return": f"return {number(self._row.get('episode_return', math.nan)):>6}",
            "speed": f"{number(round(speed) if speed >= 10 else speed):>6} steps/s",
            "left": f"{left:>5} left",
        }
        if "parameter_lag" in self._row:
            fields["workers"] = self._workers()
        return fields

    def _workers(self) -> str:
        """Returns how those do that play in other processes."""
        row = self._row
        rates = [x for k, x in row.items() if re.fullmatch(r"worker_\d+_steps_per_second", k)]
        mean = sum(rates) / max(1, len(rates))
        texts = [
            f"{len(rates)} workers at {number(round(mean))}/s",
            f"lag {row['parameter_lag']:.1f}",
            f"{row.get('blocks_waiting', 0.0):.1f} waiting",
            f"store {row.get('object_store_mb', 0.0):.0f} MB",
        ]
        if restarts := int(row.get("worker_restarts", 0)):
            texts.append(f"{restarts} restarted")
        return ", ".join(texts)

    def _count(self, unit: str, width: int) -> str:
        done = f"{int(self._row.get(unit, 0)):,}"
        if unit != self.run.unit:
            return f"{done:>{width}} {unit}"
        total = f"{self.run.budget:,}"
        return f"{done:>{len(total)}}/{total} {unit}"


def number(value: Any) -> str:
    """Returns 1,234 for whole numbers, three digits or all before the point else; "-" for NaN."""
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    value = float(value)
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Returns m:ss, from an hour on h:mm:ss; negative counts as 0."""
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def entry(name: str, value: Any) -> str:
    """Returns a summary's value as text."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return (
            duration(float(value)) if name == "seconds" and math.isfinite(value) else number(value)
        )
    return "\n".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def short(path: pathlib.Path) -> str:
    """Returns `path` relative to the working directory when it lies below it."""
    path, here = path.resolve(), pathlib.Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)
