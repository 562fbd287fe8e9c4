"""Records on disk: tables and JSON, readable whenever the run dies."""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rlws.tracking.sink import Row, Run, Sink
from rlws.tracking.stderr import warn

COUNTERS = ("steps", "episodes", "updates", "seconds", "steps_per_second")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path that takes the place of `path` at the end, or is removed on error."""
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    temporary.unlink(missing_ok=True)  # it may be a link that came with the folder
    try:
        yield temporary
        if temporary.is_file():  # on the disk first, or a power cut might leave neither
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def replace(path: pathlib.Path, text: str) -> None:
    """Writes `text` in place of a file; if that fails, the file is as it was."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


class Csv(Sink):
    """Writes `metrics.csv`: a line per row, counters first, then metrics in order of appearance.

    Absent metrics are empty, NaN is `nan`. A line is one write, flushed at once; a new column
    rewrites the file under a temporary name. A resumed run keeps the rows up to its start.
    """

    def start(self, run: Run) -> None:
        """Writes the header, and the rows kept when resuming."""
        self._path = run.directory / "metrics.csv"
        header, *rows = resumed_lines(self._path, run) or [_line(COUNTERS)]
        self._columns = next(csv.reader([header]))
        steps = _numbers(self._path, rows, lambda row: float(row.split(",", 1)[0]))
        kept = [row for row, step in zip(rows, steps, strict=True) if run.keeps(step)]
        last = max(filter(run.keeps, steps), default=0.0)
        if (resumed := run.resumed_steps or 0) > last:
            warn(
                f"{self._path} must have a row at {resumed:,} steps, where the run goes "
                f"on, got none after {last:,.0f}: it is incomplete"
            )
        self._rewrite(kept)

    def log(self, row: Row) -> None:
        """Appends `row`."""
        new = [name for name in row if name not in self._columns]
        self._columns += new
        if new:
            rows = complete_lines(self._path)[1:]
            self._rewrite([old.rstrip("\n") + "," * len(new) + "\n" for old in rows])
        append(self._path, _line(row.get(name, "") for name in self._columns).encode())

    def _rewrite(self, rows: list[str]) -> None:
        replace(self._path, _line(self._columns) + "".join(rows))


def read_metrics(path: str | os.PathLike) -> dict[str, list[float]]:
    """Returns the columns of a metrics.csv, NaN where empty; a half-written last line is left out.

    Raises:
      OSError: the file cannot be read.
      ValueError: a value is not a number, or a line has more or less of them than there are names.
    """
    header, *rows = [*csv.reader(complete_lines(pathlib.Path(path)))] or [[]]
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"line {line} must have {len(header)} values, got {len(row)}")
    return {
        name: [float(row[column] or "nan") for row in rows] for column, name in enumerate(header)
    }


def append(path: pathlib.Path, data: bytes) -> None:
    """Adds `data`, a line or a record, to the end of a file: one write, flushed at once."""
    # Reopened for each: no handle outlives a replaced file, and closing is the one write.
    with open(path, "ab") as file:
        file.write(data)


def resumed_lines(path: pathlib.Path, run: Run) -> list[str]:
    """Returns the lines that a resumed run finds in its file; none in a fresh run."""
    return complete_lines(path) if run.resumed_steps is not None and path.exists() else []


def complete_lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a file, all but a half-written last one."""
    # Not splitlines: within a line there may be what Unicode calls the end of one. Spreadsheets put
    # a mark of the encoding before all.
    *lines, _ = path.read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    return [f"{line}\n" for line in lines]


def _numbers(path: pathlib.Path, lines: list[str], steps: Callable[[str], float]) -> list[float]:
    """Returns the steps of lines, NaN of those that are none, and says how many are."""
    found = []
    for line in lines:
        try:
            found.append(float(steps(line)))
        except (ValueError, TypeError, LookupError):
            found.append(math.nan)
    if damaged := sum(map(math.isnan, found)):
        warn(f"{path} has {damaged} damaged line{'s' * (damaged > 1)}, left out")
    return found


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class Jsonl(Sink):
    """Writes `metrics.jsonl`: a JSON object a row, with the metrics that the row has.

    Valid JSON whatever the values: NaN and infinities become null. A line is one write, flushed at
    once. A resumed run keeps the rows up to its start.
    """

    def start(self, run: Run) -> None:
        """Starts the file, with the rows kept when resuming."""
        self._path = run.directory / "metrics.jsonl"
        lines = resumed_lines(self._path, run)
        steps = _numbers(self._path, lines, lambda line: json.loads(line)["steps"])
        kept = (line for line, step in zip(lines, steps, strict=True) if run.keeps(step))
        replace(self._path, "".join(kept))

    def log(self, row: Row) -> None:
        """Appends `row`."""
        append(self._path, (json.dumps(plain(row), allow_nan=False) + "\n").encode())


class Json(Sink):
    """Writes `config.json` at the start and `summary.json` at the end.

    Valid JSON whatever the values: NaN and infinities become null, arrays lists, and what JSON
    does not know its `str`.
    """

    def start(self, run: Run) -> None:
        """Writes the configuration."""
        self._directory = run.directory
        write_json(self._directory / "config.json", run.config)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary."""
        write_json(self._directory / "summary.json", summary)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON, whatever the values, in place of what was there."""
    text = json.dumps(plain(value), indent=2, default=str, allow_nan=False)
    replace(path, text + "\n")


def plain(value: Any) -> Any:
    """Returns `value` as JSON has it: NaN and infinities null, arrays lists, names strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy and JAX, scalars too
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
