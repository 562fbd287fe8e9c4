"""Signals that end a run: finish what is under way, save, and go; at the second, go at once."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 30.0  # seconds a computation or an environment may take to return after a signal


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end of the run, which is saved."""

    def __init__(self, number: int, remedy: str = ""):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number  # of the process, as shells have it
        self.remedy = remedy  # how to go on


class Interrupts:
    """Within `with`, signals set `pending` while deferred, and raise `Interrupted` otherwise.

    Python runs its handlers between two steps of the interpreter, so not while compiled code runs.
    A thread therefore watches, too: at a second signal, or when the first has had no effect for
    `GRACE` seconds, the process ends there and then, and the last checkpoint is what there is.
    """

    def __init__(self, remedy: str = "") -> None:
        self._number, self._deferred, self._remedy = 0, False, remedy

    def pending(self) -> bool:
        """Returns whether a signal came while it was deferred."""
        return self._number != 0

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it, signals wait."""
        self._deferred, before = True, self._deferred
        try:
            yield
        finally:
            self._deferred = before

    def check(self) -> None:
        """Raises Interrupted if a signal is pending."""
        if self._number:
            raise Interrupted(self._number, self._remedy)

    def __enter__(self) -> "Interrupts":
        # Only the main thread of a process may; in a notebook's or a test's thread nothing changes.
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._done = threading.Event()
            read, self._write = socket.socketpair()
            self._write.setblocking(False)
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            self._wakeup = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=_watch, args=(read, self._done), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            self._done.set()
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._write.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if not self._deferred:
            raise Interrupted(number, self._remedy)


def _watch(read: socket.socket, done: threading.Event) -> None:
    with read:
        first = _next(read)
        if not first:
            return
        print("stopping; once more to stop without saving", file=sys.stderr, flush=True)
        again = _next(read, GRACE)
        if done.is_set() or again == 0:
            return
        if again is None:
            print(
                f"error: what is under way has not returned for {GRACE:.0f} s; the last checkpoint"
                " is as it was",
                file=sys.stderr,
                flush=True,
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
