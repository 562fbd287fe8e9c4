"""The matrix: each bug, its fast test, and what the doctor says of the agent that has it.

    python -m tests.mutation [NAME ...] [--agent AGENT] [--no-diagnose]

Exit status 1: a bug survives its test, or the doctor's score is below 80 %.
"""

import argparse
import itertools
import re
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.mutation import children
from tests.mutation.bug import Bug
from tests.mutation.bugs import BUGS

AT_ONCE = 2
TEST_SECONDS, DIAGNOSE_SECONDS = 300, 600
GOAL = 0.8  # of the bugs the doctor should see


class Caught(NamedTuple):
    """What caught a bug."""

    killed: bool  # by its fast test
    test: str  # how that ended
    failed: list[str] | None  # checks of the doctor; None: it was not asked, or gave no answer
    doctor: str  # what became of it, where it gave no answer

    def named(self, bug: Bug) -> bool:
        """Returns whether the doctor names the right component."""
        return bug.component is not None and any(
            re.match(rf"{bug.component}\b", check) for check in self.failed or ()
        )


def main(args: list[str] | None = None) -> int:
    """Prints the matrix; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of bugs; default: all")
    agents = sorted({bug.agent for bug in BUGS})
    parser.add_argument("--agent", choices=agents, default="", help="only bugs of this agent")
    parser.add_argument("--no-diagnose", action="store_true", help="tests only")
    given = parser.parse_args(args)
    if unknown := set(given.names) - {bug.name for bug in BUGS}:
        parser.error(f"no such bug: {', '.join(sorted(unknown))}")
    bugs = [bug for bug in BUGS if not given.names or bug.name in given.names]
    bugs = [bug for bug in bugs if given.agent in ("", bug.agent)]
    if not bugs:
        parser.error(f"none of these is a bug of {given.agent}")
    found = catch(bugs, not given.no_diagnose)
    return show(bugs, found, not given.no_diagnose)


def catch(bugs: list[Bug], diagnose: bool = True) -> list[Caught]:
    """Runs the test of each bug and, if asked to, the doctor, each in a process of its own."""

    def one(bug):
        start = time.monotonic()
        caught = Caught(*_test(bug), *(_diagnose(bug) if diagnose else (None, "not asked")))
        seconds = time.monotonic() - start
        said = f"{bug.name}: {caught.test}; {_said(bug, caught)}; {seconds:.0f} s"
        print(said, file=sys.stderr, flush=True)
        return bug.name, caught

    # Those of one test in a row: most of what they compile is the same.
    rows = defaultdict(list)
    for bug in bugs:
        rows[bug.test].append(bug)
    with ThreadPoolExecutor(AT_ONCE, "mutation") as pool:
        played = pool.map(lambda row: [one(bug) for bug in row], rows.values())
        found = dict(itertools.chain.from_iterable(played))
    return [found[bug.name] for bug in bugs]


def show(bugs: list[Bug], found: list[Caught], diagnose: bool) -> int:
    """Prints the matrix and both scores; returns the exit status."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("bug", "agent", "fast test", "diagnose: failed checks", "right component"):
        table.add_column(column, overflow="fold")
    for bug, caught in zip(bugs, found, strict=True):
        agent = " ".join((bug.agent.removeprefix("agents_zoo."), *bug.settings))
        right = "not expected" if bug.component is None else "yes" if caught.named(bug) else "NO"
        cells = bug.name, agent, caught.test, _said(bug, caught), right if diagnose else ""
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    # Where nobody looks at it, as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    killed = sum(caught.killed for caught in found)
    print(f"\nfast tests kill {killed} of {len(bugs)}")
    if not diagnose:
        return int(killed < len(bugs))
    visible = [(b, c) for b, c in zip(bugs, found, strict=True) if b.component is not None]
    named = sum(caught.named(bug) for bug, caught in visible)
    print(f"diagnose names the component of {named} of {len(visible)} it should see")
    return int(killed < len(bugs) or named < GOAL * len(visible))


def _test(bug: Bug) -> tuple[bool, str]:
    found, error = children.call(bug, _caches(), TEST_SECONDS, children.run_test, bug.test)
    if error:
        return False, error
    status, failed = found  # which is 1 where fixtures have errors, too
    if failed:
        return True, "killed"
    return False, "SURVIVED" if status == 0 else f"ERROR {status}"


def _diagnose(bug: Bug) -> tuple[list[str] | None, str]:
    asked = bug.agent, bug.settings
    return children.call(bug, _caches(), DIAGNOSE_SECONDS, children.ask_doctor, *asked)


def _caches() -> str:
    return threading.current_thread().name


def _said(bug: Bug, caught: Caught) -> str:
    if caught.failed is None:
        return caught.doctor
    return ", ".join(caught.failed) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
