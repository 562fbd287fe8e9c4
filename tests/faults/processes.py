"""Runs by the command line, in processes that can be killed, and what they leave behind."""

import atexit
import contextlib
import csv
import hashlib
import io
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from rlws.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
KILLS = int(os.getenv("RLWS_KILLS", "3"))  # of each run; 20 where there is time
TIMES = {"seconds", "steps_per_second"}  # columns that no two runs share
CACHE = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])  # of all that ended by themselves
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "OPENBLAS_NUM_THREADS": "1",  # threads are lost in a fork
    "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",  # else what is cached depends on where
}

SMALL = ("--agent.backbone.hidden-sizes", "8", "--evaluation.episodes", "3", "--quiet")
REPLAY = ("--agent.batch-size", "16", "--agent.capacity", "400")
TOYS = {
    "reinforce": ("cartpole_reinforce", "--trainer", "host", "--steps", "3000"),
    "dqn": ("cartpole_dqn", "--steps", "2000", "--agent.min-size", "200", *REPLAY),
    "sac": ("pendulum_sac", "--steps", "800", "--agent.min-size", "100", *REPLAY),
    "ppo": (
        *("cartpole_ppo_device", "--steps", "8000", "--agent.unroll-length", "32"),
        *("--agent.minibatches", "4", "--agent.epochs", "2"),
    ),
}
# The same on the other trainer: killed, too, but spared the rest.
DEVICE = ("--trainer", "device", "--environment")
OTHERS = {
    "reinforce_device": ("cartpole_reinforce_device", "--steps", "6000"),
    "dqn_device": (*TOYS["dqn"], *DEVICE, "jax:CartPole-v1"),
    "sac_device": (*TOYS["sac"], *DEVICE, "gymnax:Pendulum-v1"),
    "ppo_host": (
        *("cartpole_ppo", "--steps", "3000", "--agent.unroll-length", "32"),
        *("--agent.minibatches", "8"),
    ),
}


class Ended(NamedTuple):
    """A process that is over."""

    status: int
    out: str
    err: str


def run_of(toy, folder, *flags):
    """Returns the arguments of `rlws` that run a toy in a folder, or go on with it."""
    period = () if "--checkpoint.period" in flags else ("--checkpoint.period", "150")
    return (
        "run",
        *(TOYS | OTHERS)[toy],
        *SMALL,
        *period,
        "--directory",
        str(folder),
        "--resume",
        *flags,
    )


def _server():
    """Starts `forked.py`; returns the socket to ask it by."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, pathlib.Path(__file__).with_name("forked.py"), str(its.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[its.fileno()],
            env=ENVIRONMENT,
        )
    atexit.register(process.wait)
    atexit.register(ours.close)  # before that
    return ours


class Forked:
    """A run that `forked.py` became, with what `subprocess.Popen` offers of it."""

    _server = None  # the socket by which `forked.py` is asked

    def __init__(self, words, variables):
        if Forked._server is None:
            Forked._server = _server()
        pipes = [os.pipe() for _ in range(3)]
        theirs = [write for _, write in pipes]
        message = json.dumps([words, variables, os.getcwd()]).encode()
        socket.send_fds(Forked._server, [message], theirs)
        for write in theirs:
            os.close(write)
        self._read = [read for read, _ in pipes]  # its output, its errors; its pid and its status
        self._heard = dict.fromkeys(self._read, b"")
        self._open, self.returncode = set(self._read), None
        while self._heard[self._read[2]].count(b"\n") < 1:
            assert self._hear(60), "forked.py does not answer"
        self.pid = int(self._heard[self._read[2]].split()[0])

    def _hear(self, seconds):
        """Takes what there is to read, waiting for so long; returns whether there was any."""
        found, _, _ = select.select(self._open, [], [], seconds)
        for read in found:
            data = os.read(read, 2**16)
            self._heard[read] += data
            if not data:
                self._open.remove(read)
                os.close(read)
                if read == self._read[2]:
                    self.returncode = int(self._heard[read].split()[1])
        return bool(found)

    def poll(self):
        while self._open and self._hear(0):
            pass
        return self.returncode

    def communicate(self, timeout=None):
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._open:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._hear(left) and left == 0.0:
                raise subprocess.TimeoutExpired("rlws", timeout)
        return tuple(self._heard[read].decode() for read in self._read[:2])

    def kill(self):
        self._send(signal.SIGKILL)

    def terminate(self):
        self._send(signal.SIGTERM)

    def _send(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def program(*words, **variables):
    """Starts a program, in a process group of its own."""
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT | variables,
    )


def own_cache():
    """Returns a new folder with links to all that was compiled before."""
    CACHE.mkdir(parents=True, exist_ok=True)
    own = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=CACHE.parent))
    for path in CACHE.iterdir():
        os.link(path, own / path.name)
    return own


def start(*args, anew=False, **variables):
    """Starts `rlws` with these arguments; `anew`: by a new Python, which imports everything.

    What it compiles it keeps in a folder of its own, where it finds what was compiled before. So
    none can be killed while it writes what others read.
    """
    own = own_cache()
    variables["JAX_COMPILATION_CACHE_DIR"] = str(own)
    if anew:
        process = program(sys.executable, "-m", "rlws", *args, **variables)
    else:
        process = Forked(args, variables)
    process.cache = own
    return process


def end(process, seconds=180):
    """Waits for a process; to take longer is to fail."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            signal_all(process, signal.SIGKILL)
            process.communicate()
        if own := getattr(process, "cache", None):
            if process.returncode == 0:  # else it may have left half of a program
                for path in own.iterdir():
                    with contextlib.suppress(FileExistsError):
                        os.link(path, CACHE / path.name)
            shutil.rmtree(own)
    return Ended(process.returncode, out, err)


def rlws(*args, seconds=180, **options):
    """Runs `rlws` with these arguments to its end."""
    return end(start(*args, **options), seconds)


def done(*args, **options):
    """Runs `rlws`, which must end well."""
    ended = rlws(*args, **options)
    assert ended.status == 0, ended.err
    return ended


def signal_all(process, number):
    """Sends a signal to a process and to its children, as a terminal does; some may be over."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def kill(process):
    """Kills a process as `kill -9` does."""
    process.kill()
    return end(process)


def lines(folder):
    """Returns how many lines there are in metrics.csv."""
    path = folder / "metrics.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(process, folder, count):
    """Waits until there are so many lines, or the process is over."""
    deadline = time.monotonic() + 120
    while process.poll() is None and lines(folder) < count:
        assert time.monotonic() < deadline, "no more rows"
        time.sleep(0.002)


def inspect(folder, *flags):
    """Returns what `rlws inspect` says."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["inspect", str(folder), *flags]) == 0
    return json.loads(out.getvalue())


def rows(folder):
    """Returns the rows of metrics.csv without what no two runs share."""
    with open(folder / "metrics.csv", newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in TIMES and v} for row in csv.DictReader(file)
        ]


def outcome(folder):
    """Returns all about a finished run that must not depend on how often it was ended."""
    newest = max((folder / "checkpoints").iterdir())
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "inspect": inspect(folder),
        "arrays": hashlib.sha256((newest / "arrays.bin").read_bytes()).hexdigest(),
        "rows": rows(folder),
        "summary": {k: v for k, v in summary.items() if k not in TIMES | {"peak_memory_mb"}},
    }


def hashes(folder, *flags):
    """Returns the check sums of all parts of the newest checkpoint."""
    return {k: v for k, v in inspect(folder, *flags).items() if k.startswith("sha256_")}


def tree(folder):
    """Returns every file below a folder, and what is in it, but for who last wrote there."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {p: p.read_bytes() for p in files}
