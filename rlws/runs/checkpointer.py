"""Keeps a run: one writer to a folder, and checkpoints when they are due."""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from rlws.numerics import checkpoint
from rlws.runs import folders
from rlws.runs.experiment import Checkpoints
from rlws.runs.goals import Goal
from rlws.settings import SettingError
from rlws.tracking.stderr import warn
from rlws.trainers import Snapshot

SECONDS = 60.0  # between checkpoints
SHARE = 0.01  # of the time that saving may take


class InUseError(SettingError):
    """Another process writes to the folder."""

    status = 6


class Checkpointer:
    """Holds the folder of a run while it goes on."""

    def __init__(self, directory: pathlib.Path, settings: Checkpoints, facts: Mapping[str, Any]):
        """Takes the folder, which exists; `facts` go into every checkpoint.

        Raises:
          InUseError: another process has it.
          StorageError: it cannot be written to.
          CheckpointError: it has checkpoints, and none is whole.
        """
        self.directory, self._settings, self._facts = directory, settings, dict(facts)
        self._lock, self._place = _lock(directory), directory.stat()
        try:
            self.saved = checkpoint.newest(self.folder, warn)  # None: there never was one
        except BaseException:
            self.close()
            raise
        self._step = -1 if self.saved is None else int(self.saved.path.name)
        self._time, self._cost = time.monotonic(), 0.0
        # Of the best by folder: its step and evaluation.
        self._best: dict[pathlib.Path, tuple[int, dict[str, float]]] = {}

    @property
    def folder(self) -> pathlib.Path:
        """Where the checkpoints are."""
        return self.directory / "checkpoints"

    def forget(self) -> None:
        """Frees the checkpoint that was found, once whoever goes on from it has what it needs."""
        if self.saved is not None:
            self.saved.arrays.clear()  # others may hold the same tree
            self.saved = None

    def resumed_steps(self, member: int | None) -> int | None:
        """Returns the steps of the last row that a member, or all, had logged; None: fresh run.

        Raises:
          CheckpointError: there is no checkpoint, but more than a run has that has hardly begun.
        """
        if self.saved is None:
            _check_fresh(self.directory)
            return None
        steps = [each["steps"] for each in self.saved.facts["recorders"]]
        if not any(each is not None for each in steps):
            return None
        return sum(x or 0 for x in steps) if member is None else steps[member]

    def due(self, step: int) -> bool:
        """Returns whether to save at this step."""
        if self._step < 0:  # nothing yet
            return True
        if period := self._settings.period:
            return step // period > self._step // period
        wait = max(SECONDS, self._cost / SHARE)
        return time.monotonic() - self._time >= wait

    def save(
        self,
        step: int,
        snapshot: Snapshot,
        facts: Mapping[str, Any],
        member: pathlib.Path | None = None,
    ) -> None:
        """Writes a checkpoint, of the run or of a `member` with a folder of its own.

        Raises:
          StorageError: it could not be written, and the settings say to stop then.
        """
        self._check_there()
        began = time.monotonic()
        folder = (self.directory if member is None else member) / "checkpoints"
        self._write(folder, step, snapshot, facts, self._settings.keep)
        if member is not None:
            return
        # Also where it failed: the next attempt is when the next one is due.
        self._step, self._time = step, time.monotonic()
        self._cost = self._time - began

    def save_best(
        self,
        step: int,
        snapshot: Callable[[], Snapshot],
        facts: Mapping[str, Any],
        row: Mapping[str, float],
        owner: pathlib.Path,
    ) -> dict[str, float]:
        """Keeps the state of the run in the folder `owner` if its evaluation is the best so far.

        Returns:
          What the best came to and at which step, as summaries have it.

        Raises:
          StorageError: as of `save`.
        """
        goal = Goal.of(self._settings.best)
        if (folder := owner / "best") not in self._best:
            found = checkpoint.newest(folder, warn)
            at = 0 if found is None else found.facts["step"]
            self._best[folder] = (at, {} if found is None else found.facts["best"])
        at, best = self._best[folder]
        if goal.score(row) > goal.score(best):
            at, best = self._best[folder] = step, {goal.name: row[goal.name]}
            self._check_there()
            self._write(folder, step, snapshot(), {**facts, "best": best}, keep=0)
        if not best:
            return {}
        return {f"best_{name}": value for name, value in best.items()} | {"best_steps": at}

    def _write(self, folder, step, snapshot, facts, keep):
        every = {
            **self._facts,
            **facts,
            "step": step,
            "trainer": snapshot.facts,
            "versions": folders.versions(),
            "machine": folders.machine(),
        }
        try:
            _sync_records(folder.parent)
            checkpoint.save(folder, f"{step:012d}", snapshot.arrays, every, keep)
        except checkpoint.StorageError as error:
            if self._settings.on_error == "stop":
                raise
            warn(f"no checkpoint at step {step:,}: {error}")

    def _check_there(self) -> None:
        # Made anew, it would hold a checkpoint and nothing that says of what.
        try:
            if os.path.samestat(self._place, self.directory.stat()):
                return
        except FileNotFoundError:
            pass
        raise checkpoint.StorageError(
            errno.ENOENT, "it was removed or moved while the run went on", str(self.directory)
        )

    def close(self) -> None:
        """Lets others have the folder."""
        self._lock.close()


def _check_fresh(directory: pathlib.Path) -> None:
    # There is a checkpoint before there is a row, so it was removed, or never could be written.
    path = directory / "metrics.csv"
    rows = path.read_bytes().count(b"\n") - 1 if path.exists() else 0
    steps = folders.summary(directory).get("steps", 0)
    if rows > 0 or steps:
        raise checkpoint.CheckpointError(
            f"{directory / 'checkpoints'} must hold a checkpoint of the run, which has {rows} rows "
            f"of metrics and {steps} steps in its summary, got none; restore it, or begin another "
            "with --directory"
        )


def _sync_records(directory: pathlib.Path) -> None:
    """Has the disk hold the rows logged so far, which no resumed run will log again.

    Raises:
      StorageError: it cannot.
    """
    with checkpoint.storing(directory):
        for pattern in ("metrics.*", "*/metrics.*"):  # of the run; of each member
            for path in directory.glob(pattern):
                checkpoint.sync(path)
                checkpoint.sync(path.parent)  # it may have been replaced


def _lock(directory: pathlib.Path) -> TextIO:
    # The kernel's lock, not the file, is what counts: it is gone when the process is.
    path = directory / ".lock"
    with checkpoint.storing(path), contextlib.ExitStack() as stack:
        # Of a link, which may have come with the folder, what it leads to would be emptied.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        file = open(os.open(path, flags, 0o666), "a+", encoding="utf-8")  # noqa: SIM115
        stack.callback(file.close)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = " ".join(file.read().split()) or "another process"
            raise InUseError(
                f"directory must have one writer, got {str(directory)!r}, which {holder} writes "
                "to; wait for it, or choose another with --directory"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%F %T')}")
        file.flush()
        stack.pop_all()
    return file
