"""Records on disk: metrics.csv, config.json and summary.json, readable whenever the run dies."""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlws.tracking.sink import Row, Run, Sink

COUNTERS = ("steps", "episodes", "updates", "seconds", "steps_per_second")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path that takes the place of `path` at the end, or is removed on error."""
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Csv(Sink):
    """Writes `metrics.csv`: a line per row, counters first, then metrics in order of appearance.

    Absent metrics are empty, NaN is `nan`. A line is one write, flushed at once; a new column
    rewrites the file under a temporary name. A resumed run keeps the rows up to its start.
    """

    def start(self, run: Run) -> None:
        """Writes the header, and the rows kept when resuming."""
        self._path = run.directory / "metrics.csv"
        lines = _complete_lines(self._path) if run.resumed_steps and self._path.exists() else []
        self._columns = next(csv.reader(lines[:1]), list(COUNTERS))
        kept = [row for row in lines[1:] if float(row.split(",", 1)[0]) <= run.resumed_steps]
        self._rewrite(kept)

    def log(self, row: Row) -> None:
        """Appends `row`."""
        new = [name for name in row if name not in self._columns]
        self._columns += new
        line = _line(row.get(name, "") for name in self._columns)
        if new:
            rows = _complete_lines(self._path)[1:]
            self._rewrite([old.rstrip("\n") + "," * len(new) + "\n" for old in rows] + [line])
        else:
            # Reopened for each row: no handle outlives a replaced file, and closing is one write.
            with open(self._path, "a", encoding="utf-8", newline="") as file:
                file.write(line)

    def _rewrite(self, rows: list[str]) -> None:
        with replacing(self._path) as temporary:
            text = _line(self._columns) + "".join(rows)
            temporary.write_text(text, encoding="utf-8", newline="")


def read_metrics(path: str | os.PathLike) -> dict[str, list[float]]:
    """Returns the columns of a metrics.csv, NaN where empty; a half-written last line is left out.

    Raises:
      OSError: the file cannot be read.
      ValueError: a value is not a number.
    """
    header, *rows = [*csv.reader(_complete_lines(pathlib.Path(path)))] or [[]]
    return {
        name: [float(row[column] or "nan") for row in rows] for column, name in enumerate(header)
    }


def _complete_lines(path: pathlib.Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class Json(Sink):
    """Writes `config.json` at the start and `summary.json` at the end.

    Valid JSON whatever the values: NaN and infinities become null, arrays lists, and what JSON
    does not know its `str`.
    """

    def start(self, run: Run) -> None:
        """Writes the configuration."""
        self._directory = run.directory
        _write_json(self._directory / "config.json", run.config)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary."""
        _write_json(self._directory / "summary.json", summary)


def _write_json(path: pathlib.Path, value: Any) -> None:
    text = json.dumps(_plain(value), indent=2, default=str, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and JAX, scalars too
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
