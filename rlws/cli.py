"""The command line of an experiment: every setting is a flag."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from rlws.checkpoint import StorageError
from rlws.distributed.workers import WorkerLost
from rlws.experiment import Experiment
from rlws.flags import parse
from rlws.health import NonFiniteError
from rlws.settings import SettingError


def main(experiment: Experiment, args: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs `experiment` with the changes the command line asks for; returns the summary.

    Exits with one line and a status where it cannot; see `say`.
    """
    try:
        return parse(experiment, sys.argv[1:] if args is None else args).run()
    except ERRORS as error:
        sys.exit(say(error, ours=args is None))


# What ends a command with one line on stderr.
ERRORS = (SettingError, NonFiniteError, StorageError, WorkerLost, KeyboardInterrupt)


def say(error: BaseException, ours: bool) -> int:
    """Prints what ended a command; returns its exit status.

    2 wrong input, 3 no usable checkpoint, 4 a faulty environment, 5 NaN in training, 6 folder in
    use, 7 storage, 8 workers that die again and again, 128 and the signal's number (130 on
    Ctrl-C). `ours` says that the process is ours to end.
    """
    status = getattr(error, "status", 130)
    if not isinstance(error, KeyboardInterrupt):
        print("error:", *str(error).split(), file=sys.stderr)  # an array in it has several lines
        return status
    remedy = getattr(error, "remedy", "")
    print("; ".join(filter(None, ("interrupted", remedy))), file=sys.stderr, flush=True)
    if ours:
        sys.stdout.flush()
        # At once: native libraries, tidying up after an interrupt, have been seen to crash.
        os._exit(status)
    return status
