"""The processes in which gymnasium steps environments together, from their start to their end."""

import contextlib
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

from rlws.environments.checks import EnvironmentFault
from rlws.settings import SettingError

CLOSING = 5.0  # seconds in which processes may end by themselves


def make(
    registered: Any, name: str, num_envs: int, vectorization: str, wrappers: Sequence[Callable] = ()
) -> Any:
    """Returns gymnasium's vector environment, "sync" in this process, "async" in one for each.

    Args:
      registered: gymnasium's `EnvSpec`.
      name: what to call it.
      num_envs: B.
      vectorization: "sync" or "async".
      wrappers: gymnasium's, around each environment.

    Raises:
      SettingError: what makes an environment cannot be sent to a process.
    """
    import gymnasium  # slow to import

    # No process is forked from this one: what JAX's threads lock would stay locked in it.
    method = "spawn" if sys.platform == "win32" else "forkserver"
    options = {"context": method} if vectorization == "async" else {}
    try:
        with _no_main_module(), _blocked_signals():
            return gymnasium.make_vec(
                registered, num_envs, vectorization, options, wrappers, disable_env_checker=True
            )
    except Exception as error:
        if "pickle" not in f"{type(error).__name__} {error}":
            raise
        raise SettingError(
            f"what makes {name!r} must be such that it can be sent to other processes, got "
            f"{registered.entry_point!r}: {error}; register it by 'module:Class', or use 'sync'"
        ) from error


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """New processes inherit it: what is sent to all of a group is for this one to act on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which, as it starts, unblocks what is blocked
    all_of_a_group = signal.SIGINT, signal.SIGHUP, signal.SIGTERM
    before = signal.pthread_sigmask(signal.SIG_BLOCK, all_of_a_group)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """New processes import the main module, and JAX with it, which takes seconds, for nothing."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def gone(envs: Any) -> EnvironmentFault | None:
    """Returns what to say of a process of an `AsyncVectorEnv` that has ended; None: of none."""
    for i, process in enumerate(envs.processes):
        process.join(1.0)
        if process.exitcode is not None:
            how = f"status {process.exitcode}"
            if process.exitcode < 0:
                how = signal.Signals(-process.exitcode).name
            return EnvironmentFault(f"environment {i}: its process ended by {how}")
    return None


def close(envs: Any) -> None:
    """Closes an `AsyncVectorEnv`.

    By gymnasium's messages, but not by its `close`, which waits for ever for a process that is
    dead, stopped or hung.
    """
    end = time.monotonic() + CLOSING
    pipes = [pipe for pipe in envs.parent_pipes if pipe is not None]  # where none has raised
    for pipe in pipes:
        with contextlib.suppress(OSError):  # nobody is there to read it
            pipe.send(("close", None))
    for process in envs.processes:
        process.join(max(0.01, end - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join(CLOSING)
    for pipe in pipes:
        pipe.close()
    envs.closed, envs.error_queue = True, None  # whose semaphores would outlive us
