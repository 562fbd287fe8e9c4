"""Whether an environment plays an episode again where it gets the same number."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import dm_env
import jax
import numpy as np

from rlws.environments.actions import legal
from rlws.environments.adapters import is_adapted
from rlws.environments.checks import EnvironmentFault, filled

STEPS = 20  # of the episode that is tried


def numbered(environment: Any) -> bool:
    """Returns whether its episodes have numbers by which it may play one again.

    They are those of its attribute `episode`, an int that can be set; any other is its own affair.
    """
    own = getattr(type(environment), "episode", None)
    fixed = isinstance(own, property) and own.fset is None
    return not fixed and type(getattr(environment, "episode", None)) is int


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Puts the global generators of Python and NumPy, which environments may use, back at the end.

    What is played aside, to be looked at, must not change what training plays.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, what others use
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


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
