"""What is said where nobody listens: nothing is raised, and the status stays what it was."""

import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console

from rlws.tracking.stderr import line_of, tell
from rlws.tracking.terminal import Terminal

ROOT = pathlib.Path(__file__).parents[2]


# Plays each case in a process of its own, forked after the imports that all of them need.
PLAY = """
import json, os, sys
import rlws.commands.cli
statuses = {}
for name, (code, stdout) in json.loads(sys.argv[1]).items():
    if child := os.fork():
        statuses[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        continue
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 2)
    os.dup2(write if stdout else os.open(os.devnull, os.O_WRONLY), 1)
    os.close(write)
    exec(code, {"sys": sys})
    raise AssertionError("a case ends its process")
print(json.dumps(statuses))
"""

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


@pytest.fixture(scope="module")
def statuses():
    """Of processes whose stderr, and in the last stdout, too, is a pipe that nobody reads."""
    cases = {name: (code, False) for name, (code, _) in CASES.items()}
    cases["ctrl-c, of both"] = CASES["ctrl-c"][0], True
    ended = subprocess.run(
        [sys.executable, "-c", PLAY, json.dumps(cases)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={k: x for k, x in os.environ.items() if k != "PYTHONUNBUFFERED"},
        timeout=120,
        check=True,
    )
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_a_pipe_that_nobody_reads_does_not_change_the_status(name, statuses):
    assert statuses[name] == CASES[name][1]


def test_nor_does_one_for_both(statuses):
    assert statuses["ctrl-c, of both"] == CASES["ctrl-c"][1]


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


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_that_lacks_a_character_shows_another(stream, monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, stream, io.TextIOWrapper(buffer, "ascii"))
    Terminal(console=Console(file=getattr(sys, stream), force_terminal=False)).note("5 \u00b1 1")
    tell("5 \u00b1 1")
    assert buffer.getvalue().startswith(b"5 ? 1\n")
