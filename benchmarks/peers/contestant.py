"""Our side of the protocol: a contestant's process, asked for work and timed."""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

from benchmarks.peers.install import NotInstalledError, interpreter
from benchmarks.peers.workloads import WORKLOADS

ROOT = pathlib.Path(__file__).parents[2]


class LeftOutError(Exception):
    """A contestant cannot take part; the message says why."""


class Contestant:
    """A process that works on request and is idle in between; a context manager, which ends it."""

    def __init__(self, command: list[str], environ: dict[str, str] | None = None):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        # Unless told otherwise, all compute where all can; a traceback's last line names the error.
        defaults = {"JAX_PLATFORMS": "cpu", "JAX_TRACEBACK_FILTERING": "off"}
        environ = {**defaults, **os.environ, **(environ or {})}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environ, text=True, **pipes)

    def run(self, chunks: int) -> dict[str, float]:
        """Has so many chunks done; returns what the contestant answers.

        Raises:
          LeftOutError: it ended instead; the last line it wrote.
        """
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            print(chunks, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise LeftOutError((self._errors.read().strip().splitlines() or ["it ended"])[-1])
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()
        self._errors.close()


class Start(NamedTuple):
    """Seconds from the start of a process to its first update, medians."""

    empty: float  # with an empty compilation cache of JAX
    filled: float
    compiling: float  # of the first, by XLA


def command(name: str, workload: str, chunk: int) -> list[str]:
    """Returns how a contestant is started, whose environment is made if need be.

    Raises:
      LeftOutError: its packages could not be installed.
    """
    try:
        python = interpreter(name)
    except NotInstalledError as error:
        raise LeftOutError(str(error)) from error
    return [python, "-m", f"benchmarks.peers.{name}", workload, str(chunk)]


def start(name: str, workload: str, runs: int) -> Start:
    """Returns how long a contestant takes until its first update.

    Raises:
      LeftOutError: there was none.
    """
    first = WORKLOADS[workload].settings.first
    measured = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            # Without the zeros JAX would keep next to nothing of what is compiled here.
            environ = {
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
            }
            (empty, compiling), (filled, _) = (
                _first_update(command(name, workload, first), environ) for _ in range(2)
            )
        measured.append(Start(empty, filled, compiling))
    return Start(*map(statistics.median, zip(*measured, strict=True)))


def _first_update(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    began = time.perf_counter()
    with Contestant(command, environ) as contestant:
        answer = contestant.run(1)
        seconds = time.perf_counter() - began
    if not answer["updates"]:
        raise LeftOutError(f"no update within {answer['steps']} steps")
    return seconds, answer["compile_seconds"]
