"""The tracking interface: a run is started, logs rows and notes, and is finished once."""

import contextlib
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, float]


class Run(NamedTuple):
    """What a sink may know about the run it follows."""

    name: str  # the experiment's
    directory: pathlib.Path  # exists, writable
    config: dict[str, Any]  # JSON-able
    budget: int  # total of `unit`, may be 0
    unit: str  # "steps" or "episodes": a column of every row
    resumed_steps: int = 0  # environment steps done before this start; 0: a fresh run

    def fraction(self, row: Row) -> float:
        """Share of the budget used at `row`, in [0, 1]; 1 for an empty budget."""
        return min(1.0, row.get(self.unit, 0) / self.budget) if self.budget else 1.0


class Sink:
    """Takes what a run reports; override what you need, the rest does nothing.

    `start` comes first, `finish` last and once, also after Ctrl-C or an error. A row holds
    steps, episodes, updates, seconds (training wall time), steps_per_second and any metrics.
    """

    def start(self, run: Run) -> None:
        """Prepares for `run`."""

    def log(self, row: Row) -> None:
        """Takes one row of named numbers; a metric may be absent or NaN."""

    def note(self, text: str) -> None:
        """Takes a message in plain words: an evaluation, a warning, a video written."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Takes the run's closing facts and releases what `start` took."""


class Tracker(Sink):
    """Hands everything to each sink in turn; finishes them in reverse order, as `with` would.

    A sink that raises OSError (disk full, pipe closed) is switched off and the run goes on: the
    others get a note, stderr does if none of them takes notes, and every later summary carries
    `sinks_failed`. Any other exception is a bug and propagates, from `finish` only after all
    sinks have finished.
    """

    def __init__(self, sinks: Iterable[Sink]):
        self.failures: list[str] = []
        self._live = list(sinks)
        self._run: Run | None = None

    def start(self, run: Run) -> None:
        """Starts the sinks, first to last."""
        self._run = run
        self._each("start", run)

    def log(self, row: Row) -> None:
        """Logs `row` everywhere."""
        self._each("log", row)

    def note(self, text: str) -> None:
        """Notes `text` everywhere."""
        self._each("note", text)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Finishes the sinks, last to first."""
        with contextlib.ExitStack() as stack:
            for sink in self._live:
                stack.callback(self._finish, sink, summary)

    def _finish(self, sink: Sink, summary: Mapping[str, Any]) -> None:
        failed = {"sinks_failed": list(self.failures)} if self.failures else {}
        self._call(sink, "finish", {**summary, **failed})

    def _each(self, method: str, argument: Any) -> None:
        for sink in tuple(self._live):
            self._call(sink, method, argument)

    def _call(self, sink: Sink, method: str, argument: Any) -> None:
        if sink not in self._live:  # switched off since the caller listed the sinks
            return
        try:
            getattr(sink, method)(argument)
        except OSError as error:
            self._live.remove(sink)
            self._report(sink, error)

    def _report(self, sink: Sink, error: OSError) -> None:
        place = error.filename or (self._run and self._run.directory)
        text = f"{type(sink).__name__} switched off, its output in {place} is incomplete: {error}"
        self.failures.append(text)
        if all(type(other).note is Sink.note for other in self._live):
            print(text, file=sys.stderr, flush=True)
        self.note(text)
