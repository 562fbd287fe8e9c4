"""Each bug is played in a process of its own, forked from one that has imported the libraries.

That one has nothing of this repository, and JAX has not started in it: so a bug costs neither
interpreter nor imports, and nothing of it is left for the next.
"""

import gc
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

from tests.mutation.bug import ROOT, Bug

# Who is missing here is imported by each child.
LIBRARIES = [
    *("dm_env", "gymnasium", "haiku", "imageio_ffmpeg", "jax", "matplotlib.pyplot", "numpy"),
    *("optax", "pytest", "rich.console", "rich.live", "rich.table", "rlax", "scipy.stats"),
    *("tests.mutation.bugs", "tyro", "execnet", "xdist.plugin"),
]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LIBRARIES)
CACHES = ROOT / ".pytest_cache" / "mutation"


def call(bug: Bug, caches: str, seconds: float, function: Callable, *args: Any) -> tuple[Any, str]:
    """Calls a function below in a child that has the bug.

    Children at the same time must have different `caches`: one might read what another is writing.

    Returns:
      What the function returned, and "". If it did not return: None, and what became of it.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=_child, args=(theirs, bug, caches, function, args))
    child.start()
    theirs.close()  # as long as it is open here, the end of the child goes unnoticed
    try:
        return ours.recv() if ours.poll(seconds) else (None, "TIMEOUT")
    except EOFError:
        child.join()
        return None, f"ERROR exit status {child.exitcode}"
    finally:
        child.kill()
        child.join()


def run_test(name: str, *args: str) -> tuple[int, int]:
    """Runs tests; returns pytest's exit status, and how many failed (not: their fixtures)."""
    import pytest

    verdict = _Verdict()
    return pytest.main(["-x", "-p", "no:cacheprovider", name, *args], [verdict]), verdict.failed


def ask_doctor(agent: str, settings: tuple[str, ...]) -> list[str]:
    """Returns which checks of the doctor an agent fails."""
    from tests.mutation.doctor import failures

    return failures(agent, *settings)


def ask_where(agent: str, only: tuple[str, ...]) -> list[tuple[str, str]]:
    """Returns which checks an agent fails, the first cause first, and where each says to look."""
    from tests.mutation.doctor import named

    return named(agent, only)


def ask_outputs(agent: str) -> list[Any]:
    """Returns what an agent makes of known experience, arrays."""
    from tests.mutation.doctor import outputs

    return outputs(agent)


class _Verdict:
    failed = 0

    def pytest_runtest_logreport(self, report):
        self.failed += report.when == "call" and report.failed


def _child(connection, bug, caches, function, args):
    gc.freeze()  # what all children have: pytest collects garbage ten times when it ends
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.chdir(ROOT)  # tests are named from there
    os.environ.pop("RLWS_BUG", None)
    os.environ["PYTEST_XDIST_WORKER"] = caches
    try:
        from tests.mutation import plugin

        plugin.install(bug)  # before anything of rlws is imported
        import jax  # which has long read its environment variables

        jax.config.update("jax_compilation_cache_dir", str(CACHES / caches))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        connection.send((function(*args), ""))
    except BaseException as error:
        connection.send((None, f"ERROR {type(error).__name__}: {error}"))
