"""Environments on the host, one or many, as a trainer steps them."""

import contextlib
from typing import Any

import dm_env

from rlws.environments import resolve
from rlws.environments.checks import closed_on_error, named
from rlws.environments.info import WithInfo
from rlws.trainers.host_environments.environments import HostEnvironments, splitter
from rlws.trainers.host_environments.serial import Serial

__all__ = ["HostEnvironments", "make_environments", "splitter"]


def make_environments(
    environment: Any, num_envs: int, vectorization: str, seed: int, begin: int = 0, first: int = 0
) -> HostEnvironments:
    """Returns `num_envs` environments of a run, stepped one after the other or together.

    Args:
      environment: a name, a JaxEnvironment or a function of (seed, index).
      num_envs: B.
      vectorization: as of `HostTrainer`.
      seed: of the run.
      begin: another number gives other episodes, where environments are stepped together.
      first: the number of the first among those of the run.
    """
    info = environment.info if isinstance(environment, WithInfo) else ()
    if vectorization == "serial":
        with contextlib.ExitStack() as stack:
            envs: list[dm_env.Environment] = []
            for index in range(first, first + num_envs):
                with named(f"environment {index - first}, when it is made"):
                    envs.append(resolve.host(environment, seed, index, training=True))
                stack.enter_context(closed_on_error(envs[-1]))
            return Serial(envs, len(info))
    from rlws.environments.vector import make_vector  # slow to import
    from rlws.trainers.host_environments.together import Together

    source = environment.environment if info else environment
    several = make_vector(source, num_envs, seed, vectorization, begin, first)
    with closed_on_error(several):
        return Together(several, info)
