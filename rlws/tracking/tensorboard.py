"""A run in TensorBoard: `tensorboard --logdir results`."""

import io
import json
import os
import platform
import textwrap
import time
from typing import Any

from rlws.settings import importing
from rlws.tracking.files import append
from rlws.tracking.sink import Row, Run, Sink


class TensorBoard(Sink):
    """Writes event files to `tensorboard/`: scalars by step, notes and configuration as text.

    Appended here, as TensorBoard's own records: the usual writers hand them to a thread, and on a
    full disk that of tensorboardX makes the run wait for ever.
    """

    def __init__(self):
        with importing("tracking with 'tensorboard'", "tensorboard"):
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.plugins.text.summary_v2 import text_pb
            from tensorboard.summary.writer.record_writer import RecordWriter
        self._event, self._summary = event_pb2, summary_pb2.Summary
        self._writer, self._text = RecordWriter, text_pb

    def start(self, run: Run) -> None:
        """Starts an event file, which hides what the lost part of a resumed run has written."""
        self._steps = run.resumed_steps or 0
        folder = run.directory / "tensorboard"
        folder.mkdir(exist_ok=True)
        # Files are read in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{platform.node()}.{os.getpid()}"
        self._path = folder / name
        self._write(file_version="brain.Event:2")
        # What tensorboardX calls purge_step: events from this step on count no more.
        session = self._event.SessionLog(status=self._event.SessionLog.START)
        first = 0 if run.resumed_steps is None else run.resumed_steps + 1
        self._write(step=first, session_log=session)
        text = json.dumps(run.config, indent=2, default=str)
        self._write(summary=self._text("config", textwrap.indent(text, "    ")))

    def log(self, row: Row) -> None:
        """Writes the row's metrics at its step."""
        self._steps = int(row["steps"])
        scalars = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "steps"
        ]
        self._write(summary=self._summary(value=scalars))

    def note(self, text: str) -> None:
        """Writes `text` at the step of the last row."""
        self._write(summary=self._text("notes", text))

    def _write(self, **fields: Any) -> None:
        event = self._event.Event(**{"wall_time": time.time(), "step": self._steps} | fields)
        record = io.BytesIO()
        self._writer(record).write(event.SerializeToString())
        append(self._path, record.getvalue())
