"""Strict: warnings are errors, and arrays of different rank never broadcast by accident.

And quick: compiled as soon as can be, but for the tests marked `exact` (see `.ci/run`).
"""

import contextlib
import ctypes
import itertools
import os
import pathlib
import resource
import signal
from collections import Counter

# Most of the time goes into compiling, and many tests compile the same. Set here, before JAX is
# imported, it holds for the other workers and for processes that tests start, too.
ROOT = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT)
os.environ["XDG_STATE_HOME"] = str(ROOT.with_name("state"))  # not what the user did
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
# Programs of tests run for moments. So they are compiled in a quarter of the time, unless the
# caller says how: `XLA_FLAGS= python -m pytest ...` compiles as users do.
SOON = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}
os.environ.setdefault("XLA_FLAGS", " ".join(f"--{name}={value}" for name, value in SOON.items()))

# What a shell that runs its tests behind its back ignores would be ignored by what they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

import jax
import pytest

from rlws.numerics import memo
from rlws.tracking import plot_run, plots

jax.config.update("jax_numpy_rank_promotion", "raise")

GIGABYTES = 6  # a worker may take before it forgets programs, which takes long
# Where code is that programs are made of.
ROOMS = "adders environments networks terms trainers numerics learner actor agent normalise types"
COMPILED = ("agents_zoo", "jax", *(f"rlws.{room}" for room in ROOMS.split()))
FILTERS = (
    "error",
    # rlax, of its own functions.
    r"ignore:Rlax softmax will be deprecated:PendingDeprecationWarning",
    # TensorFlow Probability, which rlax imports.
    r"ignore:jax\.core\.pytype_aval_mappings is deprecated:DeprecationWarning",
    # Of a program that another worker is still writing down: it is compiled here, too.
    r"ignore:Error reading persistent compilation cache entry:UserWarning",
    # Box2D; raised while it is imported, it ends the process.
    r"ignore:builtin type:DeprecationWarning",
)


def pytest_configure(config):
    memo.share()
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True, scope="module")
def _programs_are_forgotten():
    """Compiled programs are of use to the next module, but they add up to gigabytes."""
    yield
    if _memory() > GIGABYTES * 2**30:
        memo.forget()
        jax.clear_caches()
        with contextlib.suppress(AttributeError, OSError):  # glibc keeps what is freed
            ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(autouse=True, scope="session")
def _no_plots():
    """Those of runs take longer than many a run; `drawn` has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_run", lambda *_: [])
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Runs of this test draw their plots."""
    monkeypatch.setattr(plots, "plot_run", plot_run)


def _memory():
    """Returns what is in memory now; what was once, where the kernel does not say, in bytes."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10


@pytest.fixture(autouse=True, scope="session")
def _patched_code_is_compiled_anew():
    """What was made before a test changes code must not be what it tests, nor what it made stay."""
    patch, undo = pytest.MonkeyPatch.setattr, pytest.MonkeyPatch.undo

    def setattr_(self, target, *args, **kwargs):
        of = target if isinstance(target, str) else getattr(target, "__module__", None)
        if (of or getattr(target, "__name__", "")).startswith(COMPILED):
            memo.forget()
            self.changed = True
        return patch(self, target, *args, **kwargs)

    def undo_(self):
        undo(self)
        if getattr(self, "changed", False):
            memo.forget()

    pytest.MonkeyPatch.setattr, pytest.MonkeyPatch.undo = setattr_, undo_
    yield
    pytest.MonkeyPatch.setattr, pytest.MonkeyPatch.undo = patch, undo


def pytest_terminal_summary(terminalreporter):
    """Says which folders take how long, of all workers together."""
    tests, seconds = Counter(), Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            folder = pathlib.PurePath(report.nodeid.partition("::")[0]).parent.as_posix()
            tests[folder] += report.when == "call"
            seconds[folder] += report.duration
    if len(seconds) > 1:
        terminalreporter.section(f"{sum(seconds.values()):.0f} seconds of tests")
        for folder, sum_ in seconds.most_common():
            terminalreporter.write_line(f"{sum_:7.1f} s  {tests[folder]:5} tests  {folder}")
