"""Environments by name: "gym:CartPole-v1", "jax:Catch", and those a user registers."""

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TypeAlias

import dm_env

from rlws.environments.cartpole import CartPole
from rlws.environments.catch import Catch
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.memory import Memory
from rlws.environments.names import unknown
from rlws.settings import SettingError, importing
from rlws.types import EnvironmentSpec

Environment: TypeAlias = JaxEnvironment | dm_env.Environment

_factories: dict[str, Callable[..., Environment]] = {
    "jax:CartPole-v1": CartPole,
    "jax:Catch": Catch,
    "jax:Memory": Memory,
}

_OURS = frozenset(_factories)

# The prefixes of other packages: the module here that adapts them, which has `names()`, its class,
# of what follows the prefix, and the extra they are in. Imported when asked for: they are slow, or
# not installed.
_ADAPTERS = {
    "atari": ("atari_adapter", "AtariEnvironment", "atari"),
    "dm": ("dm_control_adapter", "DmControlEnvironment", "dm_control"),
    "gym": ("gymnasium_adapter", "GymEnvironment", "envs"),
    "gymnax": ("gymnax_adapter", "GymnaxEnvironment", "envs"),
}


def make(
    name: str,
    seed: int = 0,
    index: int = 0,
    render: bool = False,
    max_episode_steps: int | None = None,
) -> Environment:
    """Returns the environment called `name`.

    A JAX environment has no state, so whoever runs it takes care of `seed` and `index`.

    Args:
      name: "gym:" and a gymnasium id, "gymnax:" and a gymnax one, "dm:" with a domain and a task of
        the DeepMind Control Suite ("dm:cartpole-swingup"), "atari:" and a game of ALE's, or a
        registered name.
      seed: of the run.
      index: of this environment among those of the run, from 0.
      render: whether `render` will be called.
      max_episode_steps: replaces the time limit.

    Raises:
      SettingError: nothing is called `name`, its package is missing, or it has no time limit to
        replace.
    """
    factory = _factory(name)
    offered = dict(seed=seed, index=index, render=render, max_episode_steps=max_episode_steps)
    if max_episode_steps is None:
        del offered["max_episode_steps"]
    parameters = inspect.signature(factory).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        offered = {key: value for key, value in offered.items() if key in parameters}
    if max_episode_steps is not None and "max_episode_steps" not in offered:
        raise SettingError(
            f"max_episode_steps must be None, as {name!r} has no time limit to replace,"
            f" got {max_episode_steps}"
        )
    return factory(**offered)


def register(name: str, factory: Callable[..., Environment]) -> None:
    """Makes `make(name)` call `factory` with those of its settings that `factory` accepts by name.

    Args:
      name: "prefix:Name", with a prefix that no package here has, so not "gym" or "dm".
      factory: returns a `JaxEnvironment` (its class will do) or a dm_env environment.
    """
    prefix, _, rest = name.partition(":")
    if not prefix or not rest or prefix in _ADAPTERS:
        raise SettingError(
            f"environment name must be 'prefix:Name' with a prefix of your own, got {name!r};"
            f" try 'mine:{rest or prefix}'"
        )
    _factories[name] = factory


def registered() -> dict[str, Callable[..., Environment]]:
    """Returns what was added by `register`, to be registered in another process."""
    return {name: factory for name, factory in _factories.items() if name not in _OURS}


def available() -> list[str]:
    """Returns all known names, sorted; those of packages that are installed."""
    names = [*_factories]
    for prefix in _ADAPTERS:
        with contextlib.suppress(ImportError):
            names += _adapter(prefix).names()
    return sorted(names)


def spec(environment: Environment) -> EnvironmentSpec:
    """Returns all an agent may know of `environment`, of either kind."""
    if isinstance(environment, JaxEnvironment):
        return environment.spec()
    return EnvironmentSpec(
        observations=environment.observation_spec(),
        actions=environment.action_spec(),
        rewards=environment.reward_spec(),
        discounts=environment.discount_spec(),
        max_episode_steps=getattr(environment, "max_episode_steps", None),
    )


def _factory(name: str) -> Callable[..., Environment]:
    if name in _factories:
        return _factories[name]
    prefix, _, identity = name.partition(":")
    if prefix not in _ADAPTERS or not identity:
        raise unknown(name, available(), "rlws.environments.available() lists the names")
    _, adapted, extra = _ADAPTERS[prefix]
    with importing(f"environment {name!r}", extra):
        adapter = _adapter(prefix)
    return functools.partial(getattr(adapter, adapted), identity)


def _adapter(prefix: str) -> ModuleType:
    return importlib.import_module(f"rlws.environments.{_ADAPTERS[prefix][0]}")
