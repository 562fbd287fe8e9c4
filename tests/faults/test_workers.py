"""Environments in processes of their own, killed or stopped, and the run that they leave behind."""

import os
import pathlib
import signal
import time
import uuid

import pytest
from processes import done, end, inspect, kill, rlws, rows, start, wait_for_lines

pytestmark = pytest.mark.slow
RUN = (
    *("run", "cartpole_ppo", "--steps", "3000", "--quiet", "--evaluation.episodes", "2"),
    *("--trainer.vectorization", "async", "--trainer.num-envs", "2"),
    *("--agent.backbone.hidden-sizes", "8", "--agent.unroll-length", "16"),
    *("--checkpoint.period", "100", "--resume", "--directory"),
)


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


@pytest.fixture
def begun(tmp_path):
    """A run that is under way, its folder, the processes of its environments, and its tag."""
    tag, shared, folder = uuid.uuid4().hex, set(os.listdir("/dev/shm")), tmp_path / "run"
    process = start(*RUN, str(folder), "--trainer.environment-timeout", "2", RLWS_TAG=tag)
    try:
        wait_for_lines(process, folder, 20)
        parents = tagged(tag)
        server = set(parents.values()) - {process.pid, os.getpid()}
        workers = [child for child, parent in parents.items() if parent in server]
        assert len(workers) == 2
        yield process, folder, workers, tag
        none_left(tag)
        ours = f"*{process.pid}*"
        assert not set(pathlib.Path("/dev/shm").glob(ours)) - shared
    finally:
        for each in tagged(tag):
            os.kill(each, signal.SIGKILL)


def goes_on(folder):
    done(*RUN, str(folder))
    assert inspect(folder)["step"] >= 3000


def test_processes_of_environments_end_with_a_run_that_is_killed(begun):
    process, folder, _, tag = begun
    process.kill()
    assert end(process, 20).status == -signal.SIGKILL
    none_left(tag)
    goes_on(folder)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_chained_kills_lose_no_more_than_unfinished_episodes(vectorization, tmp_path):
    run = (*RUN, str(tmp_path / "run"), "--trainer.vectorization", vectorization)
    for count in (20, 40, 60):
        process = start(*run)
        wait_for_lines(process, tmp_path / "run", count)
        assert kill(process).status == -signal.SIGKILL
    done(*run)
    steps = [float(row["steps"]) for row in rows(tmp_path / "run")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 3000
    found = inspect(tmp_path / "run")
    assert found["resume_class"] == "bounded"
    assert 0 < found["counters"]["anew"] <= 3 * 2  # kills, environments


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (signal.SIGKILL, "its process ended by SIGKILL"),
        (signal.SIGSEGV, "its process ended by SIGSEGV"),
        (signal.SIGSTOP, "must answer within environment_timeout=2 s"),
    ],
)
def test_a_process_that_is_killed_or_stopped_is_named(number, says, begun):
    process, folder, workers, tag = begun
    os.kill(max(workers), number)
    ended = end(process, 40)
    assert ended.status == 4, ended.err
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert says in line
    none_left(tag)
    goes_on(folder)


def test_ctrl_c_is_for_the_run_and_not_for_its_environments(begun):
    process, folder, _, tag = begun
    os.killpg(process.pid, signal.SIGINT)
    ended = end(process, 30)
    assert ended.status == 130
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 2
    none_left(tag)
    goes_on(folder)
    assert rlws("inspect", str(folder)).status == 0
