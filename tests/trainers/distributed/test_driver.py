"""The process that learns is ended: nobody is left behind, and the run goes on."""

import os
import pathlib
import signal
import sys
import time
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "faults"))

from processes import done, end, hashes, inspect, lines, signal_all, start, wait_for_lines

pytestmark = pytest.mark.slow
TOY = (
    *("run", "cartpole_impala", "--agent.backbone.hidden-sizes", "8", "--steps", "9000"),
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


def command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b"agent"  # it is over


def nobody_left(tag, seconds=60):
    """Waits until nobody is, but for Ray's agents, who look for their parent every two minutes."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in of(tag) if b"agent" not in command(pid)]:
        if time.monotonic() > deadline:
            return [command(pid)[:60] for pid in left]
        time.sleep(0.2)
    return []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    done(*TOY, "--directory", str(folder))
    return folder


def test_a_dead_learner_leaves_nobody_and_the_run_goes_on_as_if_nothing_had_been(tmp_path, whole):
    folder, tags = tmp_path / "run", []
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        tags.append(tag := uuid.uuid4().hex)
        have = max(20, lines(folder))
        process = start(*TOY, "--directory", str(folder), RLWS_TAG=tag)
        wait_for_lines(process, folder, have + 15)  # a checkpoint later, and long before its end
        assert len(of(tag)) > 3  # Ray's, and the workers
        if number == signal.SIGINT:
            signal_all(process, number)  # as by Ctrl-C, which everybody hears
        else:
            os.kill(process.pid, number)
        ended = end(process, 60)
        assert ended.status == status, ended.err
        if number != signal.SIGKILL:
            assert "Traceback" not in ended.err
            assert "interrupted; go on with: rlws resume" in ended.err.splitlines()[-1]
            assert inspect(folder)["step"] >= 1500
    done(*TOY, "--directory", str(folder))
    assert hashes(folder) == hashes(whole)
    for tag in tags:  # a run that was killed is no hindrance to the next, even before they are gone
        assert nobody_left(tag) == []


def test_a_run_is_forked_evaluated_and_looked_at_as_any(whole):
    assert inspect(whole)["step"] >= 6000
    variant = ("--name", "variant", "--steps", "6200", "--agent.learning-rate", "1e-3")
    done("fork", str(whole), *variant)
    assert inspect(whole.with_name("run-variant"))["step"] >= 6200
    assert "over 2 episodes" in done("evaluate", str(whole), "--episodes", "2").out
