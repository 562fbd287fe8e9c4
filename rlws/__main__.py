"""The command `rlws`, also `python -m rlws`: one verb after it says what to do."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

VERBS = {"diagnose": "say what is wrong with an algorithm"}


def main(args: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status: 0, 1 (it found something), 2 (wrong input), 130."""
    from rlws.settings import SettingError

    # Agents of the user's own lie where the command is given.
    sys.path.insert(0, os.getcwd())
    given = sys.argv[1:] if args is None else list(args)
    parser = argparse.ArgumentParser(prog="rlws", description="A reinforcement learning workshop.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        if given[:1] == [name]:  # the others need not be imported
            importlib.import_module(f"rlws.commands.{name}").add_arguments(verb)
    found = parser.parse_args(given)
    try:
        return importlib.import_module(f"rlws.commands.{found.verb}").run(found)
    except SettingError as error:
        print("error:", *str(error).split(), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
