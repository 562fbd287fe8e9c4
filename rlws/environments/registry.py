"""Environments by name: "gym:CartPole-v1", "jax:Catch,rows=6+stack=4", those a user registers."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import dm_env

from rlws.environments.cartpole import CartPole
from rlws.environments.catch import Catch
from rlws.environments.checks import closed_on_error
from rlws.environments.deep_sea import DeepSea
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.memory import Memory
from rlws.environments.names import Name, check_settings, parse, takes_any, unknown
from rlws.environments.wrappers import BY_NAME, Wrapper, wrap
from rlws.settings import FUNCTION, SettingError, choose, function, importing

Environment: TypeAlias = JaxEnvironment | dm_env.Environment

_factories: dict[str, Callable[..., Environment]] = {
    "jax:CartPole-v1": CartPole,
    "jax:Catch": Catch,
    "jax:DeepSea": DeepSea,
    "jax:Memory": Memory,
}

_OURS = frozenset(_factories)

# The prefixes of other packages: the module here that adapts them, which has `names()`, its class,
# of what follows the prefix, and the extra they are in. Imported when asked for: they are slow, or
# not installed.
_ADAPTERS = {
    "bsuite": ("bsuite_adapter", "BsuiteEnvironment", "bsuite"),
    "brax": ("brax_adapter", "BraxEnvironment", "brax"),
    "craftax": ("craftax_adapter", "CraftaxEnvironment", "craftax"),
    "atari": ("atari_adapter", "AtariEnvironment", "atari"),
    "dm": ("dm_control_adapter", "DmControlEnvironment", "dm_control"),
    "gym": ("gymnasium_adapter", "GymEnvironment", "envs"),
    "gymnax": ("gymnax_adapter", "GymnaxEnvironment", "envs"),
    "jumanji": ("jumanji_adapter", "JumanjiEnvironment", "jumanji"),
    "pgx": ("pgx_adapter", "PgxEnvironment", "pgx"),
}


def make(
    name: str,
    seed: int = 0,
    index: int = 0,
    render: bool = False,
    max_episode_steps: int | None = None,
    training: bool = True,
    **settings: Any,
) -> Environment:
    """Returns the environment called `name`, which may say settings and wrappers, too.

    A JAX environment has no state, so whoever runs it takes care of `seed` and `index`.

    Args:
      name: "gym:" and a gymnasium id, "gymnax:" and a gymnax one, "dm:" with a domain and a task of
        the DeepMind Control Suite ("dm:cartpole-swingup"), "atari:" and a game, "bsuite:" and an
        id, "brax:", "craftax:", "jumanji:" or "pgx:" and a name of theirs, a registered name, or
        "function:" with the name of a function of seed and index ("function:mine:maze"); then
        settings of that environment after commas and wrappers after plus signs, the inmost first
        ("gym:FrozenLake-v1,is_slippery=false+limit=50"; see `wrappers.BY_NAME`).
      seed: of the run.
      index: of this environment among those of the run, from 0.
      render: whether `render` will be called.
      max_episode_steps: replaces the time limit.
      training: whether an agent will learn in it, for what records that.
      settings: of the environment, besides those in its name.

    Raises:
      SettingError: nothing is called `name`, its package is missing, or it has no such setting.
    """
    base, own, around = _parsed(name)
    factory = _factory(base)
    offered = dict(seed=seed, index=index, render=render, training=training)
    asked = own | settings
    if max_episode_steps is not None:
        asked["max_episode_steps"] = max_episode_steps
    parameters = inspect.signature(factory).parameters
    check_settings(base, asked, parameters)
    unnamed = {"seed", "index", "render"} if takes_any(parameters) else set()
    offered = {k: x for k, x in offered.items() if k in parameters or k in unnamed}
    began = call()
    environment = made(factory(**offered, **asked), name, seed, index, began)
    with closed_on_error(environment):
        return wrap(environment, *map(_wrapper, around))


def _parsed(name: str) -> Name:
    return Name(name, {}, ()) if name in _factories else parse(name)


def _wrapper(given: tuple[str, Any]) -> Wrapper:
    name, value = given
    choose("wrapper of an environment", name, BY_NAME)
    wrapper: Any = BY_NAME[name]
    (field,) = dataclasses.fields(wrapper)
    if value is None and field.default is dataclasses.MISSING:
        raise SettingError(f"wrapper {name!r} needs a {field.name}, got none; write {name}=4, say")
    return wrapper() if value is None else wrapper(value)


def register(name: str, factory: Callable[..., Environment]) -> None:
    """Makes `make(name)` call `factory` with those of its settings that `factory` accepts by name.

    Args:
      name: "prefix:Name", with a prefix that no package here has, so not "gym" or "dm".
      factory: returns a `JaxEnvironment` (its class will do), or a dm_env or gymnasium environment.
    """
    prefix, _, rest = name.partition(":")
    if not prefix or not rest or prefix in _ADAPTERS or set(name) & set(",+"):
        raise SettingError(
            f"environment name must be 'prefix:Name' with a prefix of your own, got {name!r};"
            f" try 'mine:{re.sub('[,+]', '_', rest or prefix)}'"
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


def adapted(name: str) -> type[Environment] | None:
    """Returns the class that adapts another package's environment, None for those not of one."""
    base = _parsed(name).base
    prefix, _, identity = base.partition(":")
    if base in _factories or base.startswith(FUNCTION):
        return None
    if prefix not in _ADAPTERS or not identity:
        raise unknown(base, available(), "rlws.environments.available() lists the names")
    _, cls, extra = _ADAPTERS[prefix]
    with importing(f"environment {base!r}", extra):
        return getattr(_adapter(prefix), cls)


def _factory(name: str) -> Callable[..., Environment]:
    cls: Any = adapted(name)
    if cls is not None:
        return functools.partial(cls, name.partition(":")[2])
    return functools.partial(called, function(name)) if name not in _factories else _factories[name]


def called(source: Callable[..., Any], seed: int, index: int, render: bool) -> Any:
    """Returns what a user's function of seed and index makes; `render` is for those that take it.

    Raises:
      SettingError: it is no function, but something that may stand for an environment by mistake.
    """
    if inspect.isclass(source) or not callable(source) or isinstance(source, JaxEnvironment):
        remedy = "write def make(seed, index): return ..., and pass make"
        if inspect.isclass(source) and issubclass(source, JaxEnvironment):
            remedy = f"write {source.__name__}()"
        raise SettingError(
            "environment must be a name, a JaxEnvironment, or a function of seed and index that "
            f"returns an environment, got {source!r}; {remedy}"
        )
    takes = inspect.signature(source).parameters
    began = call()
    found = source(seed, index, **({"render": render} if "render" in takes else {}))
    return made(found, source, seed, index, began)


def made(found: Any, source: Any, seed: int, index: int, began: int) -> Any:
    """Returns what a user's function has made; of gymnasium's environments, dm_env ones.

    `began` is what `call` said before.

    Raises:
      SettingError: it is none.
    """
    if isinstance(found, JaxEnvironment):
        return found
    gymnasium = sys.modules.get("gymnasium")
    is_gymnasium = gymnasium and isinstance(found, gymnasium.Env)
    if is_gymnasium or isinstance(found, dm_env.Environment):
        check_new(found, source, began)
        return _adapter("gym").GymEnvironment(found, seed, index) if is_gymnasium else found
    if callable(getattr(found, "close", None)):
        found.close()
    raise SettingError(
        "environment must be a dm_env.Environment, a gymnasium.Env or a JaxEnvironment, got "
        f"{found!r} from {source!r}"
    )


def call() -> int:
    """Returns the number of a call to a user's function that is about to be made."""
    return next(_calls)


def check_new(found: Any, source: Any, began: int) -> None:
    """Raises a SettingError where a function returns an environment from before its call `began`.

    Two would step it in turns, and evaluation would end the episodes of training.
    """
    one = _inmost(found)
    known, when = _returned.get(id(one), (None, 0))
    if known is not None and known() is one and when < began:
        raise SettingError(
            f"environment must be a new one at each call, got the same {type(one).__name__} again "
            f"from {source!r}; make it within the function"
        )
    with contextlib.suppress(TypeError):  # of what cannot be referred to weakly
        key = id(one)
        _returned[key] = weakref.ref(one, lambda _: _returned.pop(key, None)), next(_calls)


def _inmost(environment: Any) -> Any:
    """Returns what is within wrappers, by the names that they have for it; of JAX's, which have no
    state, the wrapper."""
    environment = getattr(environment, "unwrapped", environment)
    for _ in range(10):  # one may be within itself
        own = getattr(environment, "__dict__", {})
        parts = (own.get(name) for name in ("_environment", "_env", "env"))
        inner = next((x for x in parts if hasattr(x, "reset") and hasattr(x, "step")), None)
        if inner is None or isinstance(inner, JaxEnvironment):
            break
        environment = inner
    return environment


_calls = itertools.count()
# What users' functions returned, by its id, and when.
_returned: dict[int, tuple[weakref.ref, int]] = {}


def _adapter(prefix: str) -> ModuleType:
    return importlib.import_module(f"rlws.environments.{_ADAPTERS[prefix][0]}")
