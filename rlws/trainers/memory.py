"""What a run will hold in memory, and what there is, before anything is compiled."""

import contextlib
import math
import os
import pathlib
import re

import jax

from rlws.agent import Agent
from rlws.settings import SettingError
from rlws.trainers import initial
from rlws.types import EnvironmentSpec

CGROUP = pathlib.Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Returns the bytes the default device can still hold."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):  # no Linux
        available = re.search(
            r"^MemAvailable: *(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M
        )
        found += [1024 * int(available[1])] if available else []
    with contextlib.suppress(OSError, ValueError):  # no limit
        limit, used = (int((CGROUP / f"memory.{x}").read_text()) for x in ("max", "current"))
        found.append(limit - used)
    return min(found)


def check_memory(agent: Agent, spec: EnvironmentSpec, num_envs: int) -> None:
    """Raises a SettingError unless what the adder keeps fits into the free memory."""

    def begun(key):
        learner = agent.learner.init(key)
        return agent.adder.init(initial.example_row(agent, spec, learner.params), num_envs)

    leaves = jax.tree.leaves(jax.eval_shape(begun, initial.seed_key()))
    # Of more than an array can have, or than an int32 can count, there is no telling what comes.
    most = max((math.prod(x.shape) for x in leaves), default=0)
    need, free = sum(math.prod(x.shape) * x.dtype.itemsize for x in leaves), free_memory()
    if need > free or most >= 2**31:
        raise SettingError(
            f"{type(agent.adder).__name__} of {num_envs:,} environments must fit into the "
            f"{free / 1e9:,.1f} GB of memory that are free, got {need / 1e9:,.1f} GB; lower "
            "capacity, unroll_length, max_episode_length or num_envs, or show smaller observations"
        )
