"""Environments in processes of their own, killed or stopped, and the run that they leave behind."""

import contextlib
import os
import pathlib
import signal
import time
import uuid

import pytest
from processes import done, end, inspect, kill, lines, rlws, rows, signal_all, start, wait_for_lines

pytestmark = pytest.mark.slow
RUN = (
    *("run", "cartpole_ppo", "--steps", "3000", "--quiet", "--evaluation.episodes", "2"),
    *("--trainer.vectorization", "async", "--trainer.num-envs", "2"),
    *("--agent.backbone.hidden-sizes", "8", "--agent.unroll-length", "16"),
    *("--agent.minibatches", "8"),
    *("--checkpoint.period", "100", "--resume", "--directory"),
)
# Where one of the two environments begins an episode, the other makes a step alone.
ENDS = 3000, 3001


def tagged(tag):
    """Returns the processes that inherited a tag, and of each its parent."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            status, variables = (path / "stat").read_text(), (path / "environ").read_bytes()
        except OSError:  # it is over
            continue
        state, parent = status.rpartition(")")[2].split()[:2]
        if f"RLWS_TAG={tag}\0".encode() in variables and state != "Z":
            found[int(path.name)] = int(parent)
    return found


def none_left(tag, seconds=10):
    """Waits until no process has the tag."""
    deadline = time.monotonic() + seconds
    while left := tagged(tag):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@contextlib.contextmanager
def under_way(folder):
    """Yields a run that goes on in a folder, the processes of its environments, and its tag.

    In the end none of them may be there any more.
    """
    tag, shared = uuid.uuid4().hex, set(os.listdir("/dev/shm"))
    have = max(1, lines(folder))
    process = start(*RUN, str(folder), "--trainer.environment-timeout", "2", RLWS_TAG=tag)
    try:
        wait_for_lines(process, folder, have + 15)
        parents = tagged(tag)
        server = set(parents.values()) - {process.pid, os.getpid()}
        workers = [child for child, parent in parents.items() if parent in server]
        assert len(workers) == 2
        yield process, workers
        none_left(tag)
        ours = f"*{process.pid}*"
        assert not set(pathlib.Path("/dev/shm").glob(ours)) - shared
    finally:
        process.kill()
        for each in tagged(tag):
            os.kill(each, signal.SIGKILL)


def test_processes_that_are_killed_or_stopped_are_named_and_the_run_goes_on(tmp_path):
    """One run, ended five times: by its environments, by `kill -9` and by Ctrl-C."""
    folder, timeout = tmp_path / "run", "must answer within environment_timeout=2 s"
    for number, says in (
        (signal.SIGKILL, "its process ended by SIGKILL"),
        (signal.SIGSEGV, "its process ended by SIGSEGV"),
        (signal.SIGSTOP, timeout),
    ):
        with under_way(folder) as (process, workers):
            os.kill(max(workers), number)
            ended = end(process, 40)
            assert ended.status == 4, ended.err
            line = ended.err.splitlines()[-1]
            assert line.startswith("error: ")
            assert says in line
    with under_way(folder) as (process, _):
        assert kill(process).status == -signal.SIGKILL  # the environments' end with it
    with under_way(folder) as (process, _):
        signal_all(process, signal.SIGINT)  # is for the run, and not for its environments
        ended = end(process, 30)
        assert ended.status == 130
        assert "Traceback" not in ended.err
        assert len(ended.err.splitlines()) == 2
    assert rlws("inspect", str(folder)).status == 0
    assert finishes(folder, 5) in ENDS


def finishes(folder, ends, *flags):
    """Goes on to the end, and returns at which step that is.

    Of each time that the run was ended, nothing but unfinished episodes was lost.
    """
    done(*RUN, str(folder), *flags)
    steps = [float(row["steps"]) for row in rows(folder)]
    assert steps == sorted(set(steps))
    found = inspect(folder)
    assert found["step"] == steps[-1]
    assert found["resume_class"] == "bounded"
    assert 0 < found["counters"]["anew"] <= ends * 2  # environments
    return steps[-1]


def test_chained_kills_lose_no_more_than_unfinished_episodes(tmp_path):
    flags = ("--trainer.vectorization", "sync")
    for count in (20, 40, 60):
        process = start(*RUN, str(tmp_path / "run"), *flags)
        wait_for_lines(process, tmp_path / "run", count)
        assert kill(process).status == -signal.SIGKILL
    assert finishes(tmp_path / "run", 3, *flags) in ENDS
