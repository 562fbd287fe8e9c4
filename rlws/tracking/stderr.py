"""What is said on stderr, also where nobody listens any more."""

import contextlib
import io
import os
import select
import sys
from typing import TextIO


def soften() -> None:
    """Has terminals that are not UTF-8 show "?" for what they lack, and not end the process."""
    if sys.stdout is None:  # closed before we began
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # not where a test or notebook is
            with contextlib.suppress(OSError, ValueError):  # closed: it flushes
                reconfigure(errors="replace")


def tell(text: str) -> None:
    """Prints text on stderr. Where that is closed, or its terminal gone, nothing happens."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError, SystemExit):  # the last is rich's, of a closed pipe
        _silence(sys.stderr)


def unheard() -> bool:
    """Returns whether nobody listens to stdout any more, as after `| head -1`."""
    try:
        sys.stdout.flush()
        gone = _reader_gone(sys.stdout)
    except (OSError, ValueError):
        gone = True
    if gone:
        _silence(sys.stdout)
    return gone


def _reader_gone(stream: TextIO) -> bool:
    # Where nothing is buffered a flush has nothing to fail of, so the pipe itself is asked.
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except io.UnsupportedOperation:  # it is no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _silence(stream: TextIO) -> None:
    # What is left in its buffer would fail once more when Python ends, and change the status.
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def warn(text: str) -> None:
    """Tells that something is not as it should be, and that it goes on all the same."""
    tell(f"warning: {text}")


def line_of(error: BaseException) -> str:
    """Returns an error in one line: its type, what it says, and the first line of each note."""
    notes = [note.partition("\n")[0].rstrip(":") for note in getattr(error, "__notes__", ())]
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return " ".join("; ".join([text, *filter(None, notes)]).split())
