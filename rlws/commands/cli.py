"""The command line of an experiment: every setting is a flag."""

import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from rlws import sources
from rlws.commands.flags import parse
from rlws.environments.checks import EnvironmentFault
from rlws.numerics.checkpoint import StorageError
from rlws.numerics.memo import share
from rlws.runs import launch
from rlws.runs.experiment import Experiment
from rlws.runs.health import NonFiniteError
from rlws.settings import SettingError
from rlws.tracking.stderr import soften, tell, unheard
from rlws.trainers.distributed.workers import WorkerLost


def main(experiment: Experiment, args: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs `experiment` with the changes the command line asks for; returns the summary.

    Exits with one line and a status where it cannot; see `say`.
    """
    sources.begin()
    soften()
    ours = args is None
    if ours:
        share()
    given = sys.argv[1:] if args is None else [*args]
    trust = "--trust" in given  # as with any verb
    try:
        with sources.trusting(trust):
            found = launch.run(parse(experiment, [word for word in given if word != "--trust"]))
            if ours:
                sys.stdout.flush()  # what fails here would at the end of Python, in its words
            return found
    except BaseException as error:
        if (status := say(error, ours)) is None:
            raise
        sys.exit(status)


# What ends a command with one line on stderr.
ERRORS = (SettingError, NonFiniteError, StorageError, WorkerLost, KeyboardInterrupt)


def say(error: BaseException, ours: bool) -> int | None:
    """Prints what ended a command; returns its exit status, one of those in commands/README.md.

    `ours` says that the process is ours to end. None: nobody foresaw the error; raise it.
    """
    if isinstance(error, BrokenPipeError) and ours and unheard():
        return 128 + signal.SIGPIPE
    if not isinstance(error, ERRORS):
        if not (ours and (culprit := _culprit(error))):
            return None
        tell("".join(traceback.format_exception(error)).rstrip())
        what = traceback.format_exception_only(error)[0].split()
        tell(" ".join(["error:", f"{culprit}:", *what]))
        return EnvironmentFault.status
    status = getattr(error, "status", 130)
    if not isinstance(error, KeyboardInterrupt):
        tell(" ".join(["error:", *str(error).split()]))  # an array in it has several lines
        return status
    remedy = getattr(error, "remedy", "")
    tell("; ".join(filter(None, ("interrupted", remedy))))
    if ours:
        with contextlib.suppress(OSError, ValueError):  # nobody may listen any more
            sys.stdout.flush()
        # At once: native libraries, tidying up after an interrupt, have been seen to crash.
        os._exit(status)
    return status


# The notes that trainers add to an error: of which environment it is, and of which worker. That of
# a worker holds the worker's trace, in which the other may be.
_ENVIRONMENT = re.compile(
    r"^ *(environment \d+|one of the \d+ environments),.* after [\d,]+ steps", re.M
)
_WORKER = re.compile(r"^in (worker \d+),", re.M)


def _culprit(error: BaseException) -> str:
    """Returns which environment an error was raised by, "" if by none."""
    notes = "\n".join(getattr(error, "__notes__", ()))
    if not (environment := _ENVIRONMENT.search(notes)):
        return ""
    worker = _WORKER.search(notes)
    return (f"{worker[1]}: " if worker else "") + environment[0].strip()
