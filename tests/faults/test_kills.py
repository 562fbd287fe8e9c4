"""Killed at any instant, any number of times: in the end nobody can tell."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from processes import (
    KILLS,
    OTHERS,
    TOYS,
    done,
    end,
    hashes,
    inspect,
    kill,
    lines,
    outcome,
    rlws,
    rows,
    run_of,
    signal_all,
    start,
    tree,
    wait_for_lines,
)

from rlws.numerics import checkpoint

pytestmark = pytest.mark.slow
STARTUP = 3.0  # seconds: trace, compile, restore; as long again for imports, where begun anew


def random_moment(process, folder, rng, index, left, startup=STARTUP):
    """Waits for a moment of a run, of which this is one of `left`; returns how it was chosen."""
    have = lines(folder)
    most = max(2, (200 - have) // left)
    if index % 3 == 2:
        seconds, began = rng.uniform(0.0, startup), time.monotonic()
        while time.monotonic() - began < seconds and lines(folder) < have + most:
            time.sleep(0.002)
        return f"after {time.monotonic() - began:.2f} s"
    count = have + int(rng.integers(1, most))
    wait_for_lines(process, folder, count)
    time.sleep(seconds := rng.uniform(0.0, 0.1))
    return f"{seconds:.3f} s after row {count}"


# A host with episodes, and the device with a replay; the other pairs are asked for.
CHAINED = "reinforce", "dqn_device"


@pytest.mark.parametrize(
    "toy",
    [pytest.param(x, marks=[pytest.mark.thorough] * (x not in CHAINED)) for x in TOYS | OTHERS],
)
def test_chained_kills_leave_no_trace(toy, tmp_path, uninterrupted):
    if toy == "sac_device":
        pytest.importorskip("gymnax")
    _, want = uninterrupted(toy)
    seed = int(os.getenv("RLWS_KILL_SEED", "0"))
    rng, folder, killed = np.random.default_rng(seed), tmp_path / "run", 0
    for i in range(KILLS):
        # One run is ended while it imports, too, and has hashes of strings that are others.
        anew = toy == "reinforce" and i % 3 == 2
        process = start(*run_of(toy, folder), anew=anew)
        startup = 2 * STARTUP if anew else STARTUP
        moment = random_moment(process, folder, rng, i, KILLS - i, startup)
        ended = kill(process)
        print(f"{toy}, seed {seed}, kill {i}: {moment}; status {ended.status}")
        assert ended.status in (0, -signal.SIGKILL), ended.err
        killed += ended.status != 0
        steps = [float(row["steps"]) for row in rows(folder)[:-1]] if lines(folder) else []
        assert steps == sorted(set(steps))
    ended = done(*run_of(toy, folder))
    assert "passed over" not in ended.err
    assert outcome(folder) == want
    assert killed > KILLS // 2  # the others came too late


def test_kill_while_saving_leaves_no_trace(tmp_path, uninterrupted):
    # Saved at each report: most of the time is spent in there.
    _, want = uninterrupted("dqn")
    rng, folder = np.random.default_rng(1), tmp_path / "run"
    flags = run_of("dqn", folder, "--checkpoint.period", "1")
    caught = 0
    for _ in range(KILLS):
        process = start(*flags)
        have = lines(folder)
        wait_for_lines(process, folder, have + int(rng.integers(10, 40)))
        deadline = time.monotonic() + 20
        while not list((folder / "checkpoints").glob(".*.part")) and process.poll() is None:
            assert time.monotonic() < deadline
        ended = kill(process)
        assert ended.status in (0, -signal.SIGKILL), ended.err
        caught += bool(list((folder / "checkpoints").glob(".*.part")))
        assert checkpoint.newest(folder / "checkpoints", pytest.fail) is not None
    assert caught, "no kill came while saving"
    done(*flags)
    assert outcome(folder) == want
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.parametrize("toy", ["dqn", pytest.param("ppo", marks=pytest.mark.thorough)])
def test_sigterm_at_random_phases_saves_and_leaves_no_trace(toy, tmp_path, uninterrupted):
    _, want = uninterrupted(toy)
    rng, folder = np.random.default_rng(2), tmp_path / "run"
    for i in range(KILLS):
        process = start(*run_of(toy, folder, "--checkpoint.period", "1000000"))
        moment = random_moment(process, folder, rng, i, KILLS - i)
        have = lines(folder)
        process.terminate()
        ended = end(process, 30)
        print(f"{toy}, SIGTERM {i}: {moment}; status {ended.status}")
        # Before there is anything to save, and after all is: as the shell has it, the same. Or the
        # run was over.
        assert ended.status in (143, -signal.SIGTERM, 0), ended.err
        assert "Traceback" not in ended.err
        if ended.status == 143:
            assert ended.err.splitlines()[-1].startswith("interrupted; go on with: rlws resume")
            if have > 1:  # of a run that was resumed, up to what the process before logged
                steps = float(rows(folder)[-1]["steps"])
                assert inspect(folder)["step"] >= steps
    done(*run_of(toy, folder))
    assert outcome(folder) == want


def test_ctrl_c_saves_and_ends_with_130(tmp_path, uninterrupted):
    _, want = uninterrupted("reinforce")
    folder = tmp_path / "run"
    process = start(*run_of("reinforce", folder, "--checkpoint.period", "1000000"), anew=True)
    wait_for_lines(process, folder, 30)
    signal_all(process, signal.SIGINT)
    ended = end(process, 20)
    assert ended.status == 130, ended.err
    first, last = ended.err.splitlines()
    assert first.startswith("stopping; once more")
    assert last.startswith("interrupted; go on with: rlws resume ")
    assert inspect(folder)["step"] >= float(rows(folder)[-1]["steps"]) > 0
    done("resume", str(folder))  # as was said
    assert outcome(folder) == want


def test_ctrl_c_twice_ends_at_once(tmp_path, uninterrupted):
    _, want = uninterrupted("ppo")
    folder = tmp_path / "run"
    for gap in (0.0, 0.02, 0.2):
        # Everything takes long in the environment's first report: it is being compiled.
        process = start(*run_of("ppo", folder), anew=True)
        wait_for_lines(process, folder, max(1, lines(folder)) + 7)
        signal_all(process, signal.SIGINT)
        time.sleep(gap)
        signal_all(process, signal.SIGINT)  # close upon the first, the two may come as one
        ended = end(process, 20)
        assert ended.status == 130, ended.err
        assert "Traceback" not in ended.err
        assert checkpoint.newest(folder / "checkpoints", pytest.fail) is not None
    done(*run_of("ppo", folder))
    assert outcome(folder) == want


ALL = ("--evaluation.period", "300", "--track", "jsonl")


@pytest.mark.parametrize(
    ("toy", "flags"),
    [
        pytest.param("reinforce", ("--checkpoint.period", "1", *ALL), marks=pytest.mark.thorough),
        pytest.param("reinforce", ("--checkpoint.period", "0"), marks=pytest.mark.thorough),
        ("ppo", ("--checkpoint.period", "7", *ALL)),
        pytest.param("ppo", ("--checkpoint.period", "1000000"), marks=pytest.mark.thorough),
    ],
    ids=lambda x: x if isinstance(x, str) else " ".join(x),
)
def test_saving_and_evaluation_change_nothing(toy, flags, tmp_path, uninterrupted):
    before, _ = uninterrupted(toy)
    done(*run_of(toy, tmp_path / "run", *flags))
    assert hashes(tmp_path / "run") == hashes(before)
    counters = ("steps", "episodes", "updates", "episode_return", "loss")
    seen = lambda folder: [[row.get(name) for name in counters] for row in rows(folder)]
    assert seen(tmp_path / "run") == seen(before)


def test_other_seed_is_another_outcome(tmp_path, uninterrupted):
    before, _ = uninterrupted("reinforce")
    done(*run_of("reinforce", tmp_path / "run", "--seed", "1"))
    assert not set(hashes(tmp_path / "run").values()) & set(hashes(before).values())


@pytest.mark.parametrize("toy", ["dqn", pytest.param("ppo", marks=pytest.mark.thorough)])
def test_larger_budget_comes_to_what_one_long_run_does(toy, tmp_path, uninterrupted):
    before, _ = uninterrupted(toy)
    budget = str(int(TOYS[toy][TOYS[toy].index("--steps") + 1]) // 2)
    folder = tmp_path / "run"
    done(*run_of(toy, folder, "--steps", budget))
    half = tree(folder)
    ended = done(*run_of(toy, folder, "--steps", budget))
    assert ended.out.startswith("finished already")
    assert tree(folder) == half
    ended = done("resume", str(folder))  # nothing to do, either
    assert ended.out.startswith("finished already")
    done(*run_of(toy, folder))
    assert hashes(folder) == hashes(before)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that was killed when it had done half."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    process = start(*run_of("dqn", folder))
    wait_for_lines(process, folder, 100)
    kill(process)
    return folder


@pytest.mark.parametrize("name", ["arrays.bin", "manifest.json"])
def test_damaged_newest_falls_back_aloud_and_leaves_no_trace(name, begun, tmp_path, uninterrupted):
    _, want = uninterrupted("dqn")
    folder = shutil.copytree(begun, tmp_path / "run")
    names = checkpoint.names(folder / "checkpoints")
    path = folder / "checkpoints" / names[-1] / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    ended = done("inspect", str(folder))
    assert "passed over" in ended.err
    ended = done(*run_of("dqn", folder))
    assert "warning: checkpoint passed over" in ended.err
    assert names[-1] in ended.err
    assert outcome(folder) == want


def test_all_damaged_is_the_end_and_nothing_is_deleted(begun, tmp_path):
    folder = shutil.copytree(begun, tmp_path / "run")
    for name in (names := checkpoint.names(folder / "checkpoints")):
        (folder / "checkpoints" / name / "arrays.bin").write_bytes(b"")
    before = tree(folder)
    for ended in (rlws(*run_of("dqn", folder)), rlws("inspect", str(folder))):
        assert ended.status == 3
        last = ended.err.splitlines()[-1]
        assert last.startswith("error: no checkpoint in ")
        assert all(name in last for name in names)
    assert tree(folder) == before
