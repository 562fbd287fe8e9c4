"""Environments that do not answer."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from rlws.environments.checks import EnvironmentFault, named

GRACE = 30.0  # seconds in which a call that is interrupted may return


TIMEOUT = 600.0  # seconds, where no trainer says how many
_waiting: list[Callable[[], None]] = []  # the deadlines there are, which may lie within each other


@contextlib.contextmanager
def deadline(seconds: float, asked: Callable[[], tuple[str, int] | None]) -> Iterator[None]:
    """Within it, an environment that takes too long is named and ends the run.

    A thread looks on, so that waiting costs the loop nothing. It interrupts the main thread by
    SIGALRM, if nobody else uses that. A call that cannot be interrupted ends the process.

    Args:
      seconds: an environment may take to answer.
      asked: returns which environment is, and at which step of the run; None: none is.

    Raises:
      EnvironmentFault: in the body, where it waits for the environment.
    """
    done, late = threading.Event(), list[tuple[str, int]]()
    text = lambda: (
        f"{late[0][0]} must answer within environment_timeout={seconds:g} s, got nothing; mend it, "
        "or raise --trainer.environment-timeout"
    )

    def interrupt():
        if late and late == [asked()]:  # it may have answered just now
            raise EnvironmentFault(text())

    def watch():
        before, waited, period = None, 0.0, max(0.05, seconds / 4)
        while not done.wait(period):
            now = asked()
            waited = waited + period if now is not None and now == before else 0.0
            before = now
            if now is None or waited < seconds:
                continue
            late[:] = [now]
            if signal.getsignal(signal.SIGALRM) is _interrupt:
                signal.pthread_kill(thread, signal.SIGALRM)
            if not done.wait(GRACE) and asked() == now:
                print("error:", text(), file=sys.stderr, flush=True)
                for process in multiprocessing.active_children():
                    process.kill()
                os._exit(EnvironmentFault.status)

    thread = threading.get_ident()
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            signal.signal(signal.SIGALRM, _interrupt)
        _waiting.append(interrupt)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
        if interrupt in _waiting:
            _waiting.remove(interrupt)
        here = threading.get_ident() == thread  # an iterator may be closed anywhere
        if here and not _waiting and signal.getsignal(signal.SIGALRM) is _interrupt:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


class Asked:
    """Which environment is asked for something: a name, and a number that grows with each call."""

    now: tuple[str, int] | None = None

    def __call__(self) -> tuple[str, int] | None:
        """Returns `now`."""
        return self.now


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[Asked]:
    """Yields where to say which environment is asked; one that raises or hangs meanwhile is named.

    See `deadline` and `checks.named`.
    """
    asked = Asked()
    with deadline(seconds, asked), named(asked):
        yield asked


def _interrupt(*_: object) -> None:
    for interrupt in _waiting:
        interrupt()
