"""The command `rlws`, also `python -m rlws`: one verb after it says what to do."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from rlws import sources
from rlws.tracking.stderr import soften, tell

VERBS = {
    "run": "run an experiment",
    "tune": "search the settings of an experiment",
    "resume": "go on with a run that was ended",
    "fork": "go on with a run from a checkpoint, with other settings",
    "evaluate": "say how good the policy of a run is",
    "watch": "film the policy of a run",
    "diagnose": "say what is wrong with an algorithm",
    "list": "name agents, environments, experiments and runs",
    "plot": "lay the learning curves of runs over each other",
    "compare": "say which of two is better, and how sure that is",
    "report": "put runs on one page, to read and to pass on",
    "inspect": "say what a checkpoint holds, as JSON",
    "replay": "take the update that came to NaN once more",
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the status: 0, 1 (it found something), else see `commands.cli.say`."""
    soften()
    if args is None and sys.path[:1] == [os.getcwd()] != [str(sources.ROOT)]:
        sources.look_in(sys.path.pop(0))  # where `python -m` looks first
    try:
        module, found = _parsed(sys.argv[1:] if args is None else list(args))
    except KeyboardInterrupt:  # while it imports, when nothing was done yet
        tell("interrupted")
        return 130
    try:
        if args is None and "rlws.numerics" in sys.modules:  # else nothing will be compiled
            importlib.import_module("rlws.numerics.memo").share()
        with sources.trusting(found.trust):
            status = module.run(found) or 0
            if args is None:
                sys.stdout.flush()  # what fails here would at the end of Python, in its words
            return status
    except BaseException as error:
        # With all of JAX, which verbs that only read do not need.
        from rlws.commands.cli import say

        if (status := say(error, ours=args is None)) is None:
            raise
        return status


def _parsed(given: list[str]) -> tuple[Any, argparse.Namespace]:
    """Returns the module of the verb, and its arguments."""
    trust = "--trust" in given
    given = [word for word in given if word != "--trust"]
    parser = argparse.ArgumentParser(
        prog="rlws",
        description="A reinforcement learning workshop.",
        epilog="--trust, with any verb, imports the code that made a run, whoever wrote it.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    module: Any = None
    passes_on = False
    for name, text in VERBS.items():
        settings: dict[str, Any] = dict(help=text, description=text, allow_abbrev=False)
        if given[:1] != [name]:  # it need not be imported
            verbs.add_parser(name, **settings)
            continue
        module = importlib.import_module(f"rlws.commands.{name}")
        if passes_on := getattr(module, "PASSES_ON", False):
            # What says how a run ended is there before it begins: a second Ctrl-C may come while
            # the first is answered.
            importlib.import_module("rlws.commands.cli")
        # Where there is an experiment, --help is about its flags.
        about = passes_on and given[1:] and not given[1].startswith("-")
        module.add_arguments(verbs.add_parser(name, add_help=not about, **settings))
    found, rest = parser.parse_known_args(given)
    if rest and not passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    found.rest, found.trust = rest, trust
    return module, found


if __name__ == "__main__":
    sys.exit(main())
