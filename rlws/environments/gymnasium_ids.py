"""gymnasium's ids: which environments there are, and what they take."""

import dataclasses
import importlib
import inspect
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from rlws.environments import opengl
from rlws.environments.names import check_settings, unknown
from rlws.settings import SettingError

# Of the folders of gymnasium's environments, those that need more than gymnasium.
_REMEDIES = {
    "box2d": "pip install 'rlws[envs]'",
    "mujoco": "pip install 'rlws[mujoco]'",
    "phys2d": "pip install 'gymnasium[jax]'",
    "tabular": "pip install 'gymnasium[jax]'",
}


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows gymnasium's registered ids by.

    Some need a package that is missing: making them says which. ALE's, which are there only once it
    is imported, have names of their own.
    """
    return [f"gym:{identity}" for identity, spec in gymnasium.registry.items() if _is_there(spec)]


def registered(identity: str, settings: dict[str, Any] | None = None) -> EnvSpec:
    """Returns what is registered as "CartPole-v1", or as "module:Id-v0" by a module.

    Args:
      settings: for its class.

    Raises:
      SettingError: nothing is, or its class has no such setting.
    """
    module, _, name = identity.rpartition(":")
    if module:
        importlib.import_module(module)
    if name not in gymnasium.registry or not _is_there(gymnasium.registry[name]):
        remedy = "'gym:module:Id-v0' imports the module that registers an id"
        raise unknown(f"gym:{identity}", names(), remedy)
    if _folder(gymnasium.registry[name]) == "mujoco":
        opengl.imported(lambda: importlib.import_module("mujoco"))
    # `GymEnvironment` never steps before a reset, so gymnasium need not check that it does not.
    spec = dataclasses.replace(gymnasium.registry[name], order_enforce=False)
    if not settings:
        return spec
    own = dict(settings)
    if limit := own.pop("max_episode_steps", None):
        spec = dataclasses.replace(spec, max_episode_steps=limit)
    make: Any = spec.entry_point
    if isinstance(make, str):
        make = load_env_creator(make)
    parameters = dict(inspect.signature(make).parameters)
    parameters.pop("render_mode", None)
    check_settings(f"gym:{identity}", own, parameters)
    return dataclasses.replace(spec, kwargs={**spec.kwargs, **own})


def missing(identity: str, error: Exception) -> SettingError:
    """Returns what to say of an ImportError, or gymnasium's like, from making an environment."""
    who, reason = f"environment 'gym:{identity}'", " ".join(str(error).split())
    if type(error) is ImportError:  # not of a package: for `Pusher-v4`, MuJoCo must be older than 3
        return SettingError(f"{who} cannot be made here: {reason}")
    spec = gymnasium.registry.get(identity.rpartition(":")[2])
    said = [key for key in _REMEDIES if f"{key} is not installed" in reason.lower()]
    remedy = _REMEDIES.get(said[0] if said else _folder(spec), "install it")
    return SettingError(f"{who} needs a package that is missing: {remedy} ({reason})")


def _is_there(spec: EnvSpec) -> bool:
    # Of what has moved, such as MuJoCo's v2 and v3 that need mujoco_py, gymnasium keeps the ids,
    # with functions that say so; before 1.2, with what cannot be imported.
    moved = getattr(spec.entry_point, "__module__", None) == "gymnasium.envs"
    ale = "ale_py" in str(spec.entry_point)
    return not moved and not ale and not (_folder(spec) == "mujoco" and (spec.version or 0) < 4)


def _folder(spec: EnvSpec | None) -> str:
    """Returns which of gymnasium's own folders an environment is in; "" for those of others."""
    _, own, rest = str(spec and spec.entry_point).partition("gymnasium.envs.")
    return rest.partition(".")[0] if own else ""
