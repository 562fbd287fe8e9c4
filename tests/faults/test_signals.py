"""Signals in every phase of a run: it is saved, and goes on as if there had been none."""

import os
import pathlib
import signal
import sys

import pytest
from faulty import LENGTH, Faulty, left, play, refused
from processes import end, program, wait_for_lines

from rlws.numerics import checkpoint
from rlws.runs import checkpointer, recorder
from rlws.tracking import files
from rlws.trainers import learning, rollout

SIGNALS = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}
TRIED = 2 * LENGTH  # steps, of two episodes, before the run begins
# What is called in a phase, and the how manieth call of it a signal comes before.
PHASES = {
    "compiling": (rollout, "compile_acting", 1),
    "the first step": (Faulty, "step", TRIED + 1),
    "a step": (Faulty, "step", TRIED + 33),
    "a reset": (Faulty, "reset", 5),
    "learning": (learning.Learning, "take", 3),
    "the first save": (checkpoint, "_write", 1),
    "a save": (checkpoint, "_write", 5),
    "publishing": (checkpoint, "sync", 20),
    "pruning": (checkpoint, "_remove", 2),
    "logging": (files, "append", 6),
    "evaluating": (recorder.Recorder, "_evaluation", 1),
    "the last report": (checkpointer.Checkpointer, "save", 13),
}


def signalled(monkeypatch, phase, name="SIGTERM"):
    """Has a signal come in a phase; returns a list with an entry when it has."""
    owner, attribute, count = PHASES[phase]
    original, calls, sent = getattr(owner, attribute), [], []

    def call(*args, **kwargs):
        calls.append(0)
        if len(calls) == count:
            sent.append(name)
            os.kill(os.getpid(), getattr(signal, name))
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, attribute, call)
    return sent


def check(phase, tmp_path, capfd, in_peace, name="SIGTERM"):
    with pytest.MonkeyPatch.context() as patch:
        sent = signalled(patch, phase, name)
        status, line = refused(capfd, tmp_path)
        assert sent
    assert status == SIGNALS[name]
    assert line.startswith("interrupted; go on with: rlws resume ")
    found = checkpoint.newest(tmp_path / "checkpoints", pytest.fail)
    assert found is not None
    play(tmp_path)
    assert left(tmp_path) == in_peace


@pytest.mark.parametrize(
    "phase",
    [pytest.param(x, marks=[pytest.mark.slow] * (x != "a step")) for x in PHASES],
)
def test_a_signal_in_any_phase_saves_and_leaves_no_trace(phase, tmp_path, capfd, in_peace):
    check(phase, tmp_path, capfd, in_peace)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_any_signal_saves_and_leaves_no_trace(name, tmp_path, capfd, in_peace):
    check("learning", tmp_path, capfd, in_peace, name)


BLOCKED = """
import sys
from rlws.tracking import interrupts
from rlws.__main__ import main
interrupts.GRACE = 1.0
sys.exit(main())
"""


@pytest.mark.slow
def test_a_signal_ends_a_run_whose_environment_does_not_return(tmp_path, monkeypatch, in_peace):
    toy = str(pathlib.Path(__file__).with_name("faulty.py"))
    flags = ("--environment", "faulty:sleeps", "--directory", str(tmp_path), "--resume")
    process = program(sys.executable, "-c", BLOCKED, "run", toy, *flags)
    wait_for_lines(process, tmp_path, 14)  # the next step is the one that does not return
    process.terminate()
    ended = end(process, 30)
    assert ended.status == 143
    assert "has not returned for 1 s" in ended.err.splitlines()[-1]
    monkeypatch.setattr(Faulty, "healthy", True)
    play(tmp_path, "--environment", "faulty:sleeps")
    assert left(tmp_path) == in_peace
