"""The loop of reports, checkpoints and signals, with a signal at every line of it."""

import contextlib
import pathlib
import signal
import sys
from typing import NamedTuple

import numpy as np

from rlws.runs import capsule, session
from rlws.runs.experiment import Checkpoints
from rlws.tracking import interrupts
from rlws.tracking.interrupts import Interrupted
from rlws.trainers import Member, Progress, Snapshot

REPORTS = 4
CODE = {session.__file__, interrupts.__file__, contextlib.__file__}


class Others(Exception):
    """Whoever looked after signals before, or does afterwards, got it."""


class Training:
    """Takes the place of an experiment, and remembers where training stands."""

    checkpoint = Checkpoints()

    def __init__(self, halts=False, error=None):
        self.made, self._halts, self._error = -1, halts, error

    def train_all(self, runs, *, resume, stop, ended):
        for step in range(REPORTS):
            self.made = step
            last = step == REPORTS - 1
            stopped = stop() and not last
            halted = self._halts and last
            yield {0: self._report(step, last and not halted, halted, stopped)}
            if stopped:
                return
            if self._error:
                raise self._error

    def _report(self, step, spent, halted, stopped):
        def snapshot():
            assert self.made == step, "training has gone on"
            return Snapshot({}, {})

        none = np.zeros(0)
        counts = step, 0, 0, none, none, {}
        return Progress(*counts, None, None, spent, snapshot, halted, stopped)


class Recorder:
    def __init__(self):
        self.taken, self.summary = [], {"steps": 0}

    def save(self):
        return {"taken": len(self.taken)}

    def take(self, report, seconds):
        self.taken.append(report.steps)
        self.summary["steps"] = report.steps


class Checkpointer:
    saved = None
    directory = pathlib.Path("run")
    folder = directory / "checkpoints"

    def __init__(self):
        self.saves = []

    def due(self, step):
        return step == 0

    def forget(self):
        pass

    def save(self, step, snapshot, facts):
        self.saves.append((step, facts["recorders"][0]["taken"]))


class Ended(NamedTuple):
    training: Training
    recorder: Recorder
    checkpointer: Checkpointer
    error: BaseException | None  # `Others` where it was not for this run
    lines: int  # at which a signal could have come


def signalled(line, **how):
    """Follows a run, with a signal before this line of those it comes through, in all."""
    training, recorder, checkpointer = Training(**how), Recorder(), Checkpointer()
    seen, others, error = [0], [], None

    def trace(frame, event, argument):
        if frame.f_code.co_filename not in CODE:
            return None
        if event == "line":
            seen[0] += 1
            if seen[0] == line:
                signal.raise_signal(signal.SIGTERM)
        return trace

    before = sys.gettrace(), signal.signal(signal.SIGTERM, lambda *_: others.append(True))
    sys.settrace(trace)
    try:
        session.train(training, [Member(0, {})], [recorder], checkpointer)
    except BaseException as found:
        error = found
    finally:
        sys.settrace(before[0])
        signal.signal(signal.SIGTERM, before[1])
    error = Others() if others and error is None else error
    return Ended(training, recorder, checkpointer, error, seen[0])


def at_every_line(**how):
    lines = signalled(0, **how).lines
    assert lines > 100
    return (signalled(line, **how) for line in range(1, lines + 1))


def test_a_signal_at_any_line_is_raised_and_what_was_reported_is_saved():
    for training, recorder, checkpointer, error, _ in at_every_line():
        if training.made < 0:  # nothing was begun
            continue
        if isinstance(error, Others):
            assert recorder.taken == list(range(REPORTS))
            continue
        assert isinstance(error, Interrupted)
        step, taken = checkpointer.saves[-1]
        # Whoever resumes makes the last report again, and has all rows before it.
        assert step == training.made
        assert taken == step
        assert recorder.taken[:taken] == list(range(step))


def test_a_run_in_peace_is_saved_at_first_and_at_last():
    ended = signalled(0)
    assert ended.error is None
    assert ended.checkpointer.saves == [(0, 0), (REPORTS - 1, REPORTS - 1)]
    assert ended.recorder.taken == list(range(REPORTS))


def test_a_run_that_came_to_nan_is_never_saved(monkeypatch):
    monkeypatch.setattr(capsule, "keep", lambda *_: FloatingPointError("NaN"))
    kinds = set()
    for training, _, checkpointer, error, _ in at_every_line(halts=True):
        kinds.add(type(error))
        assert REPORTS - 1 not in [step for step, _ in checkpointer.saves]
        if training.made == REPORTS - 1:
            assert checkpointer.saves[0] == (0, 0)
    assert kinds <= {Interrupted, FloatingPointError, Others}
    assert Interrupted in kinds


def test_an_error_of_an_environment_is_told_with_the_signal(monkeypatch):
    error = ValueError("broken joint")
    error.add_note("environment 1, step 2")
    assert signalled(0, error=error).error is error
    lost = [
        ended.error
        for ended in at_every_line(error=error)
        if isinstance(ended.error, Interrupted) and ended.error.__cause__ is error
    ]
    assert lost
    for each in lost:
        assert each.status == 143
        assert "ValueError: broken joint; environment 1, step 2; go on with" in each.remedy
