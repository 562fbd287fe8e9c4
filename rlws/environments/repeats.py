"""Whether an environment plays an episode again where it gets the same number."""

from typing import Any

import dm_env
import jax
import numpy as np

from rlws.environments.actions import legal
from rlws.environments.adapters import is_adapted
from rlws.environments.checks import EnvironmentFault, filled

STEPS = 20  # of the episode that is tried


def repeats(environment: dm_env.Environment) -> bool:
    """Returns whether it does, as far as a few steps with the same actions tell.

    An environment written in JAX is taken at its word, as trying would compile it.
    """
    if is_adapted(environment):
        return True
    try:
        one, other = (_play(environment) for _ in range(2))
    except EnvironmentFault:  # it hangs
        raise
    except Exception:  # what it cannot do here it may never be asked for; else the run will say so
        return False
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def _play(environment: Any) -> list[np.ndarray]:
    environment.episode = 0
    action = legal(environment.action_spec())
    timesteps = [environment.reset()]
    leaves = list[np.ndarray]()
    for _ in range(STEPS):
        leaves += map(np.array, jax.tree.leaves(filled(timesteps[-1])))
        if timesteps[-1].last():
            break
        timesteps.append(environment.step(action))
    return leaves
