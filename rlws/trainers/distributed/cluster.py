"""Ray: here, or the cluster at an address."""

import contextlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from rlws.environments import WithInfo, registry
from rlws.settings import SettingError, importing
from rlws.tracking.interrupts import handlers_kept


def imported() -> Any:
    """Returns the module `ray`.

    Raises:
      SettingError: it is not installed.
    """
    # Before it is imported: it would say so on stderr, and send it to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with importing("the DistributedTrainer", "ray"):
        import ray
    return ray


def process() -> dict[str, Any]:
    """Returns what a process of ours runs in: Ray's `runtime_env`."""
    # Whatever can be imported here can be imported there, if the files are there, too.
    installed = sys.prefix, sys.base_prefix
    ours = [path for path in sys.path if path and not path.startswith(installed)]
    # The learner's device is not theirs.
    return {"env_vars": {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(ours)}}


def registered() -> dict[str, bytes]:
    """Returns the environments that were registered here, packed to be sent, all that can be."""
    found = {}
    for name, factory in registry.registered().items():
        with contextlib.suppress(SettingError):  # one that is not asked for stops nobody
            found[name] = _packed(f"the factory of {name}", factory)
    return found


def check_sent(environment: Any, config: Any) -> None:
    """Raises a SettingError unless what a run is made of can be sent to other processes."""
    _packed("the agent's configuration", config)
    if isinstance(environment, WithInfo):
        environment = environment.environment
    factory = (
        registry.registered().get(environment) if isinstance(environment, str) else environment
    )
    _packed(f"the factory of {environment}", factory)


def _packed(what: str, thing: Any) -> bytes:
    try:
        return imported().cloudpickle.dumps(thing)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SettingError(
            f"{what} must be such that it can be sent to other processes, got {thing!r}: {reason}; "
            "have it make what cannot be pickled when it is called, or use another trainer"
        ) from error


def check_address(address: str | None) -> None:
    """Raises a SettingError if nobody listens at `address`; Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit() or "/" in host:  # "auto", or none
        return
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except OSError as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str | None, error: Exception) -> SettingError:
    return SettingError(
        f"address must be that of a running Ray cluster, got {address!r}: {error}; `ray start "
        "--head` begins one (where it asks for a token, set RAY_AUTH_MODE=token here, too), and "
        "none at all means this machine"
    )


@contextlib.contextmanager
def connected(address: str | None, workers: int, dashboard: bool) -> Iterator[Any]:
    """Within it Ray runs: what runs already, the cluster at the address, or one on this machine.

    Raises:
      SettingError: Ray is missing, or there is no cluster at the address.
    """
    ray = imported()
    if ray.is_initialized():  # by whoever called us
        yield ray
        return
    here: dict[str, Any] = {}
    if address is None:
        # Cores are the operating system's to share here; Ray only has to let all workers begin.
        here = dict(num_cpus=max(os.cpu_count() or 1, workers + 2), include_dashboard=dashboard)
    # Ray takes SIGTERM for itself, and would end the process without saving.
    with handlers_kept(), warnings.catch_warnings():
        # Ray's processes begin with a fork, of which JAX warns; they do nothing before they exec.
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **here)
        except (ConnectionError, ValueError) as error:
            raise _unreachable(address, error) from error
    try:
        yield ray
    finally:
        with handlers_kept():
            ray.shutdown()
