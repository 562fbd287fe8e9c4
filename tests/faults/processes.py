"""Runs by the command line, in processes that can be killed, and what they leave behind."""

import csv
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
KILLS = int(os.getenv("RLWS_KILLS", "3"))  # of each run; 20 where there is time
TIMES = {"seconds", "steps_per_second"}  # columns that no two runs share
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

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
    "ppo_host": ("cartpole_ppo", "--steps", "3000", "--agent.unroll-length", "32"),
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


def program(*words, **variables):
    """Starts a program, in a process group of its own."""
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT | variables,
    )


def start(*args, **variables):
    """Starts `rlws` with these arguments."""
    return program(sys.executable, "-m", "rlws", *args, **variables)


def end(process, seconds=180):
    """Waits for a process; to take longer is to fail."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return Ended(process.returncode, out, err)


def rlws(*args, seconds=180, **options):
    """Runs `rlws` with these arguments to its end."""
    return end(start(*args, **options), seconds)


def done(*args, **options):
    """Runs `rlws`, which must end well."""
    ended = rlws(*args, **options)
    assert ended.status == 0, ended.err
    return ended


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
    return json.loads(done("inspect", str(folder), *flags).out)


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
