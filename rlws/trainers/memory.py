"""What a run will hold in memory, and what there is, before anything is compiled."""

import contextlib
import dataclasses
import itertools
import math
import os
import pathlib
import re
import resource
from collections.abc import Iterator
from typing import Any

import jax

from rlws.agent import AgentConfig
from rlws.environments import JaxEnvironment
from rlws.settings import SettingError, Settings, change
from rlws.trainers import initial
from rlws.types import EnvironmentSpec

CGROUPS = pathlib.Path("/sys/fs/cgroup")
PROCESS = pathlib.Path("/proc")
# Where the two versions of control groups say their limit, what is used, and how much of that is
# only files, which can be read again.
LIMITS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Returns the bytes the default device can still hold."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    found += [1024 * x for x in _numbers(PROCESS / "meminfo", "MemAvailable: *")]
    if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        found += [limit - 1024 * x for x in _numbers(PROCESS / "self" / "status", "VmSize:\\s*")]
    for folder, names in _groups():
        most, used, files = (_numbers(folder / name, start) for name, start in names)
        if most and used:
            found.append(most[0] - used[0] + sum(files))
    return max(0, min(found))


def _groups() -> Iterator[tuple[pathlib.Path, list[tuple[str, str]]]]:
    """Yields the control groups of this process, with the files of each and how lines begin."""
    lines = ["0::/"]
    with contextlib.suppress(OSError):
        lines += (PROCESS / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    paths = {pathlib.PurePosixPath(line.split(":", 2)[2]) for line in lines}
    for path, (root, limit, used, files) in itertools.product(paths, LIMITS):
        for each in (path, *path.parents):
            folder = CGROUPS / root / str(each).lstrip("/")
            yield folder, [(limit, ""), (used, ""), ("memory.stat", f"{files} ")]


def _numbers(path: pathlib.Path, start: str) -> list[int]:
    """Returns the number after the start of a line in a file, if there are both."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{start}(\d+)", path.read_text(encoding="utf-8"), re.M)
        return [int(found[1])] if found else []
    return []


def check_memory(
    config: AgentConfig,
    spec: EnvironmentSpec,
    num_envs: int,
    environment: JaxEnvironment | None = None,
) -> None:
    """Raises a SettingError unless what an agent keeps, and JAX environments, fit into the memory.

    It names the setting that makes it large.
    """
    need, most = _size(config, spec, num_envs, environment)
    free = free_memory()
    # Along an axis longer than an int32 can count, there is no telling what comes.
    if need <= free and most < 2**31:
        return
    smaller = {"trainer.num_envs": _size(config, spec, max(1, num_envs // 2), environment)[0]}
    for name, value in _halved(config):
        with contextlib.suppress(SettingError):
            found = _size(change(config, {name: value}), spec, num_envs, environment)[0]
            smaller[f"agent.{name}"] = found
    best = 1.1 * min(smaller.values())
    names = " or ".join(name for name in smaller if smaller[name] <= best)
    raise SettingError(
        f"what the agent keeps, in arrays with axes shorter than {2**31:,}, must fit into the "
        f"{free / 1e9:,.1f} GB of memory that are free, got {need / 1e9:,.1f} GB; lower {names}"
    )


def _size(config, spec, num_envs, environment):
    """Returns the bytes of a state, and its longest axis."""
    begun = lambda: initial.begin(config.make(spec), spec, 0, num_envs)
    shapes: Any = [*jax.tree.leaves(jax.eval_shape(begun))]
    sizes = [math.prod(x.shape) for x in shapes]
    if environment:
        own = jax.tree.leaves(jax.eval_shape(environment.reset, initial.seed_key()))
        shapes, sizes = [*shapes, *own], [*sizes, *(num_envs * math.prod(x.shape) for x in own)]
    longest = max(itertools.chain.from_iterable(x.shape for x in shapes))
    return sum(n * x.dtype.itemsize for n, x in zip(sizes, shapes, strict=True)), longest


def _halved(settings: Settings, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields each setting that is of whole numbers, by dotted name, with half of them."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        name, value = f"{place}{field.name}", getattr(settings, field.name)
        if isinstance(value, Settings):
            yield from _halved(value, f"{name}.")
        elif type(value) is int:
            yield name, value // 2
        elif isinstance(value, tuple) and value and all(type(x) is int for x in value):
            yield name, tuple(max(1, x // 2) for x in value)
