"""The process that learns is ended: nobody is left behind, and the run goes on."""

import os
import pathlib
import signal
import sys
import time
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "faults"))

from processes import done, end, hashes, inspect, program, wait_for_lines

pytestmark = pytest.mark.slow
TOY = (
    *("run", "cartpole_impala", "--agent.backbone.hidden-sizes", "8", "--steps", "6000"),
    *("--evaluation.episodes", "3", "--quiet", "--checkpoint.period", "500", "--resume"),
    *("--trainer.wait-for", "all", "--trainer.num-envs", "2"),
)


def of(tag):
    """Returns the processes that were begun with this tag, but for those that are dead."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            if tag.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def nobody_left(tag, seconds=150):  # Ray's agents look for their parent now and then
    deadline = time.monotonic() + seconds
    while left := of(tag):
        if time.monotonic() > deadline:
            return [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()[:60] for pid in left]
        time.sleep(0.2)
    return []


def start(folder, tag):
    words = (sys.executable, "-m", "rlws", *TOY, "--directory", str(folder))
    return program(*words, RLWS_TAG=tag)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done(*TOY, "--directory", str(folder))
    return hashes(folder)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=["SIGKILL", "SIGTERM", "SIGINT"],
)
def test_a_dead_learner_leaves_nobody_and_the_run_goes_on_as_if_nothing_had_been(
    number, status, tmp_path, whole
):
    folder, tag = tmp_path / "run", uuid.uuid4().hex
    process = start(folder, tag)
    wait_for_lines(process, folder, 60)
    assert len(of(tag)) > 3  # Ray's, and the workers
    # As by Ctrl-C, which everybody hears.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    ended = end(process, 60)
    assert ended.status == status, ended.err
    assert nobody_left(tag) == []
    if number != signal.SIGKILL:
        assert "Traceback" not in ended.err
        assert "interrupted; go on with: rlws resume" in ended.err.splitlines()[-1]
        assert inspect(folder)["step"] >= 1500
    done(*TOY, "--directory", str(folder))
    assert hashes(folder) == whole


def test_a_run_is_forked_evaluated_and_looked_at_as_any(tmp_path):
    folder = tmp_path / "run"
    words = ("run", "cartpole_dqn", "--trainer", "distributed", "--trainer.num-actors", "2")
    small = ("--agent.backbone.hidden-sizes", "8", "--agent.min-size", "100")
    spent = ("--steps", "300", "--evaluation.episodes", "3", "--quiet")
    done(*words, *small, *spent, "--directory", str(folder))
    assert inspect(folder)["step"] >= 300
    variant = ("--name", "variant", "--steps", "400", "--agent.learning-rate", "1e-3")
    done("fork", str(folder), *variant)
    assert inspect(tmp_path / "run-variant")["step"] >= 400
    assert "over 2 episodes" in done("evaluate", str(folder), "--episodes", "2").out
