"""What a run calls its environment (a name, an object, a function), as what its trainer needs."""

import functools
import os
from collections.abc import Callable
from typing import Any

import dm_env

from rlws.environments.adapters import jitted, to_dm_env
from rlws.environments.checks import closed_on_error
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.registry import Environment, make, registered
from rlws.settings import SettingError

Source = str | JaxEnvironment | Callable[[int, int], Environment]  # the function: of seed and index


def host(source: Source, seed: int, index: int, render: bool = False) -> dm_env.Environment:
    """Returns environment `index` of the run with this seed, stepped from Python.

    Raises:
      SettingError: no such environment, or the function returned something else.
    """
    environment: Any = source
    if render:  # pictures, not a window: SDL need not look for a screen
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if isinstance(source, str):
        environment = make(source, seed, index, render)
    elif not isinstance(source, JaxEnvironment):
        environment = source(seed, index)
    if isinstance(environment, JaxEnvironment):
        return to_dm_env(environment, seed, index)
    with closed_on_error(environment):
        if not isinstance(environment, dm_env.Environment):
            raise SettingError(
                f"environment must be a dm_env.Environment or a JaxEnvironment, got {environment!r}"
                f" from {source!r}"
            )
    return environment


def device(source: Source) -> JaxEnvironment:
    """Returns the environment as pure functions.

    Raises:
      SettingError: it has none.
      EnvironmentFault: they do not return what they must.
    """
    if not is_jax(source):
        raise SettingError(
            f"DeviceTrainer needs an environment written in JAX, got {source!r}; "
            "use one such as jax:CartPole-v1, or the HostTrainer"
        )
    environment: Any = make(source) if isinstance(source, str) else source
    jitted(environment)  # which checks them
    return environment


def is_jax(source: Source) -> bool:
    """Returns whether the environment can run on the device."""
    if isinstance(source, str):
        return _is_jax(source, registered().get(source))
    return isinstance(source, JaxEnvironment)


@functools.cache
def _is_jax(name: str, factory: Any) -> bool:
    # Once, and closed: there may be one of it at a time only.
    if name.startswith(("atari:", "gym:", "dm:")):
        return False
    found: Any = make(name)
    if isinstance(found, JaxEnvironment):
        return True
    found.close()
    return False
