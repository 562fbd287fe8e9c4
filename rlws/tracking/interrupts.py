"""Signals that end a run: finish what is under way, save, and go; at the second, go at once."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rlws.tracking.stderr import line_of, tell

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 30.0  # seconds a computation or an environment may take to return after a signal


def in_main_thread() -> bool:
    """Returns whether this is the thread that alone may say who handles a signal."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def handlers_kept(handler: Callable[..., None] | None = None) -> Iterator[None]:
    """Within it, signals are handled by `handler`, if given; after it, by whom they were before."""
    before = {number: signal.getsignal(number) for number in _ours()}
    try:
        if handler:
            for number in before:
                signal.signal(number, handler)
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def _ours() -> list[signal.Signals]:
    """Returns the signals this thread may handle: none that is to be ignored, as by nohup."""
    if not in_main_thread():
        return []
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end of the run."""

    def __init__(self, number: int, remedy: str = ""):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number  # of the process, as shells have it
        self.remedy = remedy  # what was not saved, if anything, and how to go on


class Interrupts:
    """Within `with`, signals wait, and are raised as `Interrupted` where it is `opened`, or ends.

    Python runs its handlers between two steps of the interpreter, so not while compiled code runs.
    A thread therefore watches, too: at a second signal, or when the first has had no effect for
    `GRACE` seconds in which nothing was saved, the process ends there and then, and the last
    checkpoint is what there is.
    """

    def __init__(self, remedy: str = "") -> None:
        self._number, self._waits, self._saving, self._remedy = 0, True, False, remedy

    def pending(self) -> bool:
        """Returns whether a signal came."""
        return self._number != 0

    def check(self, lost: Exception | None = None) -> None:
        """Raises Interrupted if a signal came; `lost` is what ended the run before it was saved."""
        remedy = self._remedy
        if lost:
            remedy = f"not saved since the last checkpoint because of {line_of(lost)}; {remedy}"
        if self._number:
            raise Interrupted(self._number, remedy) from lost

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Within it, a signal raises Interrupted; one that waits does at once.

        No instant is lost: whoever catches it around the `with` has every signal until they wait
        again, and once one was raised they do.
        """
        self._waits = False
        try:
            self.check()
            yield
        finally:
            self._waits = True

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Within it, the process is given as long as it takes, unless there is a second signal."""
        self._saving = True
        try:
            yield
        finally:
            self._saving = False

    def __enter__(self) -> "Interrupts":
        # Only the main thread of a process may; in a notebook's or a test's thread nothing changes.
        self._active = in_main_thread()
        if self._active:
            self._done = threading.Event()
            read, self._write = socket.socketpair()
            self._write.setblocking(False)
            self._before = {number: signal.signal(number, self._handle) for number in _ours()}
            self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            watch = (read, self._done, lambda: self._saving)
            self._watcher = threading.Thread(target=_watch, args=watch, daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._active:
            self._done.set()
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._write.close()
            self._watcher.join()  # which may not yet have said that a signal came
        if kind is None:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if not self._waits:
            self._waits = True  # what catches it saves, and is not to be interrupted in that
            raise Interrupted(number, self._remedy)


@contextlib.contextmanager
def finishing(error: BaseException) -> Iterator[None]:
    """Within it, if a signal made `error`, the next one ends the process there and then.

    An exception would not do: Python drops what is raised in callbacks of its garbage collector.
    """
    if not isinstance(error, Interrupted):
        yield
        return

    def leave(*_: object) -> None:
        tell(f"interrupted; {error.remedy}")
        os._exit(error.status)

    with handlers_kept(leave):
        yield


def _watch(read: socket.socket, done: threading.Event, saving: Callable[[], bool]) -> None:
    with read:
        first = _next(read)
        if not first:
            return
        tell("stopping; once more to stop without saving")
        again = _next(read, GRACE)
        while again is None and saving() and not done.is_set():
            again = _next(read, GRACE)
        if done.is_set() or again == 0:
            return
        if again is None:
            tell(
                f"error: what is under way has not returned for {GRACE:.0f} s; the last checkpoint"
                " is as it was"
            )
        os._exit(128 + first)


def _next(read: socket.socket, seconds: float = threading.TIMEOUT_MAX) -> int | None:
    """Returns which of `SIGNALS` comes next; 0 where none will, None where none came in time."""
    end = time.monotonic() + seconds
    while True:
        read.settimeout(max(0.001, end - time.monotonic()))
        try:
            found = read.recv(1)
        except TimeoutError:
            return None
        if not found or found[0] in SIGNALS:  # else one that others have a handler for
            return found[0] if found else 0
