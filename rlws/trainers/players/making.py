"""Makes the environments of a run."""

from typing import Any

import dm_env

from rlws.environments import resolve
from rlws.environments.checks import named
from rlws.trainers.players.players import Players
from rlws.trainers.players.serial import Serial


def make_players(
    environment: Any, num_envs: int, vectorization: str, seed: int, begin: int = 0, first: int = 0
) -> Players:
    """Returns `num_envs` environments of a run, stepped one after the other or together.

    Args:
      environment: a name, a JaxEnvironment or a function of (seed, index).
      num_envs: B.
      vectorization: as of `HostTrainer`.
      seed: of the run.
      begin: another number gives other episodes, where environments are stepped together.
      first: the number of the first among those of the run.
    """
    if vectorization == "serial":
        envs: list[dm_env.Environment] = []
        try:
            for index in range(first, first + num_envs):
                with named(f"environment {index - first}, when it is made"):
                    envs.append(resolve.host(environment, seed, index))
            return Serial(envs)
        except BaseException:
            for env in envs:
                env.close()
            raise
    from rlws.environments.vector import make_vector  # slow to import
    from rlws.trainers.players.together import Vector

    return Vector(make_vector(environment, num_envs, seed, vectorization, begin, first))
