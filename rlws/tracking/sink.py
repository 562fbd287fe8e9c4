"""The tracking interface: a run is started, logs rows and notes, and is finished once."""

import contextlib
import pathlib
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from rlws.tracking.stderr import tell

Row = Mapping[str, float]
OnFailure = Literal["drop", "stop"]


class Run(NamedTuple):
    """What a sink may know about the run it follows."""

    name: str  # the experiment's
    directory: pathlib.Path  # exists, writable
    config: dict[str, Any]  # JSON-able
    budget: int  # total of `unit`, may be 0
    unit: str  # "steps" or "episodes": a column of every row
    resumed_steps: int | None = None  # steps done before this start; None: a fresh run

    def fraction(self, row: Row) -> float:
        """Share of the budget used at `row`, in [0, 1]; 1 for an empty budget."""
        return min(1.0, row.get(self.unit, 0) / self.budget) if self.budget else 1.0

    @property
    def label(self) -> str:
        """The name of the run's folder."""
        return self.directory.resolve().name

    def keeps(self, steps: float) -> bool:
        """Returns whether a row that was logged at `steps` before this start stays."""
        return self.resumed_steps is not None and steps <= self.resumed_steps


class Sink:
    """Takes what a run reports; override what you need, the rest does nothing.

    `start` comes first, `finish` last and once, also after Ctrl-C or an error. A row holds
    steps, episodes, updates, seconds (training wall time), steps_per_second and any metrics.

    Attributes:
      on_failure: whether an outside error ends this sink only, or the run as well.
      outside_errors: what it may raise through no fault of ours, such as a full disk.
    """

    on_failure: OnFailure = "drop"
    outside_errors: tuple[type[Exception], ...] = (OSError,)

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

    A sink that raises one of its `outside_errors` (disk full, pipe closed, service down) is
    switched off: the others get a note, stderr does if none of them takes notes, and every later
    summary carries `sinks_failed`. The run goes on, unless the sink's `on_failure` is "stop": then
    the error propagates. Any other exception is a bug and always does. From `finish`, both
    propagate only after all sinks have finished.
    """

    outside_errors = ()  # its sinks' errors were dealt with: what comes through is to be raised

    def __init__(self, sinks: Iterable[Sink]):
        self.failures: list[str] = []
        self._sinks, self._live = tuple(sinks), list[Sink]()
        self._run: Run | None = None

    def start(self, run: Run) -> None:
        """Starts the sinks, first to last."""
        self._run = run
        for sink in self._sinks:  # if one ends the run, those after it have nothing to finish
            self._live.append(sink)
            self._call(sink, "start", run)

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
        except sink.outside_errors as error:
            self._live.remove(sink)
            self._report(sink, error)
            if sink.on_failure == "stop":
                raise

    def _report(self, sink: Sink, error: Exception) -> None:
        place = getattr(error, "filename", None) or (self._run and self._run.directory)
        reason = textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
        text = f"{type(sink).__name__} switched off, its output in {place} is incomplete: {reason}"
        self.failures.append(text)
        if all(type(other).note is Sink.note for other in self._live):
            tell(text)
        self.note(text)
