"""The matrix: each bug, its fast test, and what the doctor says of the agent that has it.

    python -m tests.mutation [NAME ...] [--no-diagnose]

Exit status 1: a bug survives its test, or the doctor's score is below 80 %.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.mutation.bug import ROOT, Bug
from tests.mutation.bugs import BUGS

AT_ONCE = 2
CACHES = ROOT / ".pytest_cache" / "jax"
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
    parser.add_argument("--no-diagnose", action="store_true", help="tests only")
    given = parser.parse_args(args)
    if unknown := set(given.names) - {bug.name for bug in BUGS}:
        parser.error(f"no such bug: {', '.join(sorted(unknown))}")
    bugs = [bug for bug in BUGS if not given.names or bug.name in given.names]

    def one(bug):
        caught = catch(bug, not given.no_diagnose)
        print(f"{bug.name}: {caught.test}; {_said(bug, caught)}", file=sys.stderr, flush=True)
        return caught

    with ThreadPoolExecutor(AT_ONCE, "mutation") as pool:
        found = list(pool.map(one, bugs))
    return show(bugs, found, not given.no_diagnose)


def catch(bug: Bug, diagnose: bool = True) -> Caught:
    """Runs the test of a bug and, if asked to, the doctor, each in a process of its own."""
    killed, test = _test(bug)
    failed, doctor = _diagnose(bug) if diagnose else (None, "not asked")
    return Caught(killed, test, failed, doctor)


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
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "tests.mutation.plugin", bug.test]
    ended = _run(command, bug, TEST_SECONDS)
    if ended is None:
        return False, "TIMEOUT"
    # 1: some test failed, 2 to 5: there was none to fail. Errors of fixtures are no failures.
    if ended.returncode == 1 and re.search(r"\b[1-9]\d* failed", ended.stdout):
        return True, "killed"
    return False, "SURVIVED" if ended.returncode == 0 else f"ERROR {ended.returncode}"


def _diagnose(bug: Bug) -> tuple[list[str] | None, str]:
    command = [sys.executable, "-m", "tests.mutation.doctor", bug.agent, *bug.settings]
    ended = _run(command, bug, DIAGNOSE_SECONDS)
    if ended is None:
        return None, "TIMEOUT"
    if ended.returncode:
        return None, f"ERROR {(ended.stderr.strip().splitlines() or ['?'])[-1]}"
    return json.loads(ended.stdout.splitlines()[-1]), ""


def _run(command, bug, seconds):
    # Compilation caches of its own for each thread, as tests/conftest.py has for each worker.
    worker = threading.current_thread().name
    caches = {"PYTEST_XDIST_WORKER": worker, "JAX_COMPILATION_CACHE_DIR": str(CACHES / worker)}
    environment = os.environ | {"RLWS_BUG": bug.name} | caches
    try:
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return None


def _said(bug: Bug, caught: Caught) -> str:
    if caught.failed is None:
        return caught.doctor
    return ", ".join(caught.failed) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
