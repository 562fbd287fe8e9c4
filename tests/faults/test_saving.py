"""Killed by the kernel at any call to the disk while a checkpoint is written."""

import collections
import re
import shutil
import signal
import sys

import numpy as np
import pytest
from processes import end, program

from rlws.numerics import checkpoint

pytestmark = pytest.mark.slow

CALLS = ("mkdir", "openat", "write", "fsync", "rename", "unlinkat", "rmdir")
SAVE = """
import pathlib, sys
import numpy as np
from rlws.numerics import checkpoint
print("begins", flush=True)
checkpoint.save(pathlib.Path(sys.argv[1]), f"{3:012d}", {"x": np.full(5, 3)}, {"step": 3})
"""


def write(folder, *steps):
    for step in steps:
        checkpoint.save(folder, f"{step:012d}", {"x": np.full(5, step)}, {"step": step})
    return folder


def saved(folder):
    """Returns the step of the newest checkpoint, which must be whole."""
    found = checkpoint.newest(folder, pytest.fail)
    step = found.facts["step"]
    np.testing.assert_array_equal(found.arrays["x"], np.full(5, step))
    return step


def traced(folder, log, *flags):
    """Saves step 3 under strace."""
    return end(program("strace", "-o", str(log), *flags, sys.executable, "-c", SAVE, str(folder)))


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The calls to the disk of a save, each with how many of its name there were until then."""
    path = tmp_path_factory.mktemp("calls")
    if not shutil.which("strace") or end(program("strace", "-o", "/dev/null", "true")).status:
        pytest.skip("no strace")
    log = path / "log"
    assert traced(write(path / "run", 1, 2), log, "-e", f"trace={','.join(CALLS)}").status == 0
    counts, found, begun = collections.Counter(), [], False
    for line in log.read_text().splitlines():
        if call := re.match(r"(\w+)\(", line):
            counts[name := call[1]] += 1
            if begun:
                found.append((name, counts[name]))
            begun |= '"begins' in line
    return found


def test_all_is_on_the_disk_before_it_is_published_and_that_before_the_old_is_pruned(calls):
    order = [name for name, _ in calls if name in ("fsync", "rename", "unlinkat", "rmdir")]
    files, publish, prune = ["fsync"] * 3, ["rename", "fsync"], ["rename", "unlinkat", "unlinkat"]
    assert order == [*files, *publish, *prune, "rmdir"]


def test_a_kill_at_any_call_leaves_a_whole_checkpoint_and_the_next_one_tidies_up(calls, tmp_path):
    assert len(calls) >= 20
    seen = collections.Counter()
    for i, (name, count) in enumerate(calls):
        folder = write(tmp_path / str(i), 1, 2)
        inject = f"inject={name}:signal=SIGKILL:when={count}"
        ended = traced(folder, "/dev/null", "-e", inject)
        assert ended.status == -signal.SIGKILL, (name, count, ended.err)
        seen[saved(folder)] += 1
        write(folder, 4)
        assert saved(folder) == 4
        assert not list(folder.glob(".*"))
    assert seen.keys() == {2, 3}
