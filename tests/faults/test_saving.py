"""Killed by the kernel at any call to the disk while a checkpoint is written."""

import collections
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from processes import ENVIRONMENT, end, program

from rlws.numerics import checkpoint

pytestmark = pytest.mark.slow

CALLS = ("mkdir", "openat", "write", "fsync", "rename", "unlink", "rmdir")
# Forks at each folder it reads; the child saves there once it may, when it is being traced.
SAVES = """
import ctypes, os, pathlib, signal, sys
import numpy as np
from rlws.numerics import checkpoint

def save(folder):
    checkpoint.save(pathlib.Path(folder), f"{3:012d}", {"x": np.full(5, 3)}, {"step": 3})

save(sys.argv[1])  # whatever is imported at the first call
while folder := sys.stdin.readline().strip():
    wait, go = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        # By anybody, where the kernel lets only parents.
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
        os.read(wait, 1)
        save(folder)
        os._exit(0)
    print(child, flush=True)
    assert sys.stdin.readline() == "go\\n"
    os.write(go, b"!")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os.close(wait), os.close(go)
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


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Returns a function that saves step 3 under strace, and returns the status of who does."""
    if not shutil.which("strace") or end(program("strace", "-o", "/dev/null", "true")).status:
        pytest.skip("no strace")
    path = str(tmp_path_factory.mktemp("first"))
    words = [sys.executable, "-c", SAVES, path]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    with subprocess.Popen(words, **pipes) as process:

        def ask(text):
            print(text, file=process.stdin, flush=True)
            return int(process.stdout.readline())

        def save(folder, log, *flags):
            child = ask(folder)
            strace = program("strace", "-o", str(log), *flags, "-p", str(child))
            assert "attached" in strace.stderr.readline()
            status = ask("go")
            end(strace, 20)
            return status

        yield save
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def calls(traced, tmp_path_factory):
    """The calls to the disk of a save, each with how many of its name there were until then."""
    path = tmp_path_factory.mktemp("calls")
    log = path / "log"
    assert traced(write(path / "run", 1, 2), log, "-e", f"trace={','.join(CALLS)}") == 0
    counts, found = collections.Counter(), []
    for line in log.read_text().splitlines():
        if call := re.match(r"(\w+)\(", line):
            counts[name := call[1]] += 1
            found.append((name, counts[name]))
    return found


def test_all_is_on_the_disk_before_it_is_published_and_that_before_the_old_is_pruned(calls):
    order = [name for name, _ in calls if name in ("fsync", "rename", "unlink", "rmdir")]
    files, publish, prune = ["fsync"] * 3, ["rename", "fsync"], ["rename", "unlink", "unlink"]
    assert order == [*files, *publish, *prune, "rmdir"]


def test_a_kill_at_any_call_leaves_a_whole_checkpoint_and_the_next_one_tidies_up(
    calls, traced, tmp_path
):
    assert len(calls) >= 20
    seen = collections.Counter()
    for i, (name, count) in enumerate(calls):
        folder = write(tmp_path / str(i), 1, 2)
        inject = f"inject={name}:signal=SIGKILL:when={count}"
        status = traced(folder, "/dev/null", "-e", inject)
        assert status == -signal.SIGKILL, (name, count, status)
        seen[saved(folder)] += 1
        write(folder, 4)
        assert saved(folder) == 4
        assert not list(folder.glob(".*"))
    assert seen.keys() == {2, 3}
