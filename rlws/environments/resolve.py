"""What a run calls its environment (a name, an object, a function), as what its trainer needs."""

import functools
import os
from collections.abc import Callable
from typing import Any

import dm_env

from rlws.environments.adapters import jitted, to_dm_env
from rlws.environments.checks import closed_on_error
from rlws.environments.info import WithInfo, keeping
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.registry import Environment, adapted, called, make, registered
from rlws.settings import SettingError

# The function is of seed and index.
Source = str | JaxEnvironment | Callable[[int, int], Environment] | WithInfo


def host(
    source: Source, seed: int, index: int, render: bool = False, training: bool = False
) -> dm_env.Environment:
    """Returns environment `index` of the run with this seed, stepped from Python.

    Args:
      training: whether an agent will learn in it.

    Raises:
      SettingError: no such environment, or the function returned something else.
    """
    own, info = _parts(source)
    environment: Any = own
    if render:  # pictures, not a window: SDL need not look for a screen
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if isinstance(own, str):
        environment = make(own, seed, index, render, training=training)
    elif not isinstance(own, JaxEnvironment):
        environment = called(own, seed, index, render)
    if info:
        with closed_on_error(environment):
            environment = keeping(environment, info)
    if isinstance(environment, JaxEnvironment):
        return to_dm_env(environment, seed, index)
    return environment


def device(source: Source) -> JaxEnvironment:
    """Returns the environment as pure functions.

    Raises:
      SettingError: it has none.
      EnvironmentFault: they do not return what they must.
    """
    own, info = _parts(source)
    if not is_jax(own):
        raise SettingError(
            f"DeviceTrainer needs an environment written in JAX, got {own!r}; "
            "use one such as jax:CartPole-v1, or the HostTrainer"
        )
    environment: Any = make(own) if isinstance(own, str) else own
    environment = keeping(environment, info) if info else environment
    jitted(environment)  # which checks them
    return environment


def is_jax(source: Source) -> bool:
    """Returns whether the environment can run on the device."""
    own, _ = _parts(source)
    if isinstance(own, str):
        return _is_jax(own, registered().get(own))
    return isinstance(own, JaxEnvironment)


def _parts(source: Source) -> tuple[Any, tuple[str, ...]]:
    """Returns the environment without info, and what is kept of that."""
    if isinstance(source, WithInfo):
        return source.environment, source.info
    return source, ()


@functools.cache
def _is_jax(name: str, factory: Any) -> bool:
    known = adapted(name)
    if known is not None:
        return issubclass(known, JaxEnvironment)
    # Once, and closed: there may be one of it at a time only.
    found: Any = make(name)
    if isinstance(found, JaxEnvironment):
        return True
    found.close()
    return False
