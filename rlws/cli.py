"""The command line of an experiment: every setting is a flag."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from rlws.experiment import Experiment
from rlws.flags import parse
from rlws.health import NonFiniteError
from rlws.settings import SettingError


def main(experiment: Experiment, args: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs `experiment` with the changes the command line asks for; returns the summary.

    Exits with status 2 and one line on a wrong setting or environment, 5 where parameters become
    NaN, 130 on Ctrl-C.
    """
    try:
        return parse(experiment, sys.argv[1:] if args is None else args).run()
    except SettingError as error:
        print("error:", *str(error).split(), file=sys.stderr)  # an array in it has several lines
        sys.exit(2)
    except NonFiniteError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(5)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        if args is None:  # the process is ours
            sys.stdout.flush()
            # At once: native libraries, tidying up after an interrupt, have been seen to crash.
            os._exit(130)
        sys.exit(130)
