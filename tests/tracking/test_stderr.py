"""What is said where nobody listens: nothing is raised, and the status stays what it was."""

import os
import pathlib
import subprocess
import sys

import pytest

from rlws.tracking.stderr import line_of, tell

ROOT = pathlib.Path(__file__).parents[2]


def status(code, stdout=False):
    """Returns the status of a process of this code whose stderr is a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        return subprocess.run(
            [sys.executable, "-c", code],
            stderr=write,
            stdout=write if stdout else subprocess.DEVNULL,
            cwd=ROOT,
            env={k: x for k, x in os.environ.items() if k != "PYTHONUNBUFFERED"},
            timeout=120,
        ).returncode
    finally:
        os.close(write)


TRACKER = """
import pathlib
from rlws.tracking import Run, Sink, Tracker
class Broken(Sink):
    def log(self, row): raise OSError(28, "No space left on device")
tracker = Tracker([Broken()])
tracker.start(Run("toy", pathlib.Path("."), {}, 1, "steps"))
tracker.log({"steps": 1})
assert tracker.failures
sys.exit(4)
"""
MAIN = "from rlws.__main__ import main; sys.exit(main())"
CASES = {
    "tell": ("from rlws.tracking.stderr import tell; tell('once'); tell('more'); sys.exit(4)", 4),
    "tracker": (TRACKER, 4),
    "a verb": (f"sys.argv[1:] = ['inspect', 'no such folder']; {MAIN}", 2),
    "ctrl-c": (
        "from rlws.commands.cli import say; from rlws.tracking.interrupts import Interrupted;"
        "print('a row');"
        "say(Interrupted(1, 'go on so'), ours=True)",
        129,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_pipe_that_nobody_reads_does_not_change_the_status(name):
    code, want = CASES[name]
    assert status(f"import sys; {code}" if "\n" not in code else f"import sys{code}") == want


def test_nor_does_one_for_both():
    code, want = CASES["ctrl-c"]
    assert status(f"import sys; {code}", stdout=True) == want


def test_tell_is_said_at_once(capfd):
    tell("so it is")
    assert capfd.readouterr() == ("", "so it is\n")


def test_line_of_an_error_has_type_text_and_notes():
    error = ValueError("broken\n  joint")
    assert line_of(error) == "ValueError: broken joint"
    error.add_note("environment 1, step 2")
    error.add_note("in worker 3, so:\nTraceback")
    assert line_of(error) == "ValueError: broken joint; environment 1, step 2; in worker 3, so"
    assert line_of(KeyboardInterrupt()) == "KeyboardInterrupt"
