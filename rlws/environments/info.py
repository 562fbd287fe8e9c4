"""What an environment says beside its timesteps, one number an episode each: success, distance.

WithInfo("gym:HalfCheetah-v5", ("reward_ctrl=sum", "x_position")) is the environment with it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.environments.actions import legal
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.rules import FIRST
from rlws.environments.wrappers import DmWrapped, State, Wrapped, Wrapper
from rlws.numerics import streams
from rlws.settings import SettingError, Settings, choose
from rlws.types import Action, Array, Observation

RULES = ("last", "sum", "mean", "max")  # by which what is said in the steps becomes one number
TAKEN = ("return", "length", "unfinished")  # how columns begin that every run has
STEPS = 10_000  # of an episode in which something must be said


class WithInfo(Settings):
    """An environment, and which of the numbers that it says are kept of each episode."""

    environment: Any  # as for `resolve`: a name, an object, a function
    info: tuple[str, ...]  # name=rule, one of `RULES`, of what is said in the steps; or name: last

    def __post_init__(self):
        super().__post_init__()
        parsed(self.info)


def parsed(info: tuple[str, ...]) -> dict[str, str]:
    """Returns the rule of each name.

    Raises:
      SettingError: there is no such rule, or a name is there twice, or means something else.
    """
    found: dict[str, str] = {}
    for text in info:
        name, _, rule = text.partition("=")
        choose(f"info {text!r}: rule", rule or "last", RULES)
        if name in found or not name or name.startswith(TAKEN):
            raise SettingError(
                f"info must be different names, which do not begin with {' or '.join(TAKEN)}, got "
                f"{' '.join(info)!r}; write success=last reward_ctrl=sum, say"
            )
        found[name] = rule or "last"
    return found


class Kept(NamedTuple):
    """What was said in an episode so far; NaN, and what is not said in a step, do not count."""

    value: Any  # [..., k]
    count: Any  # [..., k], steps in which it was said

    @classmethod
    def nothing(cls, shape: tuple[int, ...], xp: Any = np) -> "Kept":
        """Returns what there is before the first step."""
        return cls(xp.full(shape, -xp.inf, xp.float32), xp.zeros(shape, xp.float32))

    def add(self, rules: tuple[str, ...], said: Any, xp: Any = np) -> "Kept":
        """Returns it with what was said in one more step, [..., k]."""
        is_last, is_max = (np.array([rule == name for rule in rules]) for name in ("last", "max"))
        before = xp.where(self.count > 0, self.value, 0.0)
        value = xp.where(is_max, xp.maximum(self.value, said), before + said)
        heard = ~xp.isnan(said)
        value = xp.where(heard, xp.where(is_last, said, value), self.value)
        return Kept(value.astype(np.float32), self.count + heard.astype(np.float32))

    def numbers(self, rules: tuple[str, ...], xp: Any = np) -> Any:
        """Returns the number of each name, [..., k]; NaN of what was never said."""
        is_mean = np.array([rule == "mean" for rule in rules])
        value = self.value / xp.where(is_mean, xp.maximum(self.count, 1.0), 1.0)
        return xp.where(self.count > 0, value, xp.nan)


class _Keep(Wrapper):
    """Changes nothing; its state is what was kept of an episode."""

    names: tuple[str, ...]
    rules: tuple[str, ...]

    def begin(self, observation: Observation, xp: Any) -> tuple[Kept, Observation]:
        """Returns that nothing was said yet."""
        return Kept.nothing((len(self.names),), xp), observation


class _Keeping(Wrapped):
    """A JAX environment which keeps, in its state, what it said in the episode."""

    wrapper: _Keep

    def __post_init__(self):
        super().__post_init__()
        environment, said = self.environment, dict[str, Any]()

        def told(key, action):
            found = environment.step_with_info(environment.reset(key)[0], action)
            if not (isinstance(found, tuple) and len(found) == 3 and isinstance(found[2], dict)):
                raise SettingError(
                    f"{type(environment).__name__}.step_with_info must return state, timestep and "
                    f"a dict of numbers, got {found!r}"
                )
            said.update(found[2])

        key = streams.draw(streams.key(0, streams.Stream.ENVIRONMENT))
        jax.eval_shape(told, key, environment.spec().actions)
        check_said(self.wrapper.names, said)

    def step(self, state: State, action: Action) -> tuple[State, dm_env.TimeStep]:
        """Takes a step, and keeps what is said in it."""
        inner, timestep, info = self.environment.step_with_info(state.inner, action)
        said = jnp.stack([jnp.asarray(info[name], jnp.float32) for name in self.wrapper.names])
        return State(inner, state.own.add(self.wrapper.rules, said, jnp)), timestep


class _DmKeeping(DmWrapped):
    """A dm_env environment which keeps what it said in the episode."""

    _wrapper: _Keep

    def step(self, action: Action) -> dm_env.TimeStep:
        """Takes a step, and keeps what is said in it."""
        timestep = super().step(action)
        if timestep.step_type != FIRST:
            self._said = self._environment.info()
            said = numbers(self._said, self._wrapper.names)
            self._own = self._own.add(self._wrapper.rules, said)
        return timestep

    def episode_info(self) -> list[float]:
        """Returns what is kept of the episode, in the order of the names."""
        return self._own.numbers(self._wrapper.rules).tolist()

    def try_info(self) -> None:
        """Plays an episode of some action, unless all is said before its end.

        Raises:
          SettingError: something is not said in it.
        """
        timestep, known = self.reset(), dict[str, Any]()
        for _ in range(STEPS):
            if timestep.last() or known.keys() >= {*self._wrapper.names}:
                break
            timestep = self.step(legal(self.action_spec()))
            known |= self._said
        check_said(self._wrapper.names, known)


def keeping(environment: Any, info: tuple[str, ...]) -> Any:
    """Returns the environment, of either kind, keeping these numbers.

    Below wrappers that are ours, so that nothing that is said in a repeated step is lost.

    Raises:
      SettingError: it says no such numbers.
    """
    if isinstance(environment, Wrapped):
        return dataclasses.replace(environment, environment=keeping(environment.environment, info))
    if isinstance(environment, DmWrapped):
        environment._environment = keeping(environment._environment, info)
        return environment
    keep = _Keep((*parsed(info),), (*parsed(info).values(),))
    if isinstance(environment, JaxEnvironment):
        return _Keeping(environment, keep)
    if not callable(getattr(environment, "info", None)):
        check_said(keep.names, {})
    return _DmKeeping(environment, keep)


def episode_info(environment: JaxEnvironment, state: Any) -> Array | None:
    """Returns what is kept of the episode, [..., k], in the order of names; None: nothing is."""
    while isinstance(environment, Wrapped):
        if isinstance(environment, _Keeping):
            return state.own.numbers(environment.wrapper.rules, jnp)
        environment, state = environment.environment, state.inner
    return None


def numbers(said: Mapping[str, Any], names: tuple[str, ...]) -> np.ndarray:
    """Returns what was said by these names, float32 [k]; NaN of what was not."""
    if not isinstance(said, Mapping):
        raise SettingError(f"info must be a dict in each step, got {said!r}")
    found = [said.get(name, math.nan) for name in names]
    try:
        if (one := np.array(found, np.float32)).shape == (len(names),):
            return one
    except (TypeError, ValueError, OverflowError):
        pass
    check_said(names, {name: math.nan for name in names} | dict(said))
    raise SettingError(f"info must be numbers, got {found} of {', '.join(names)}")


def check_said(
    names: tuple[str, ...], said: Mapping[str, Any], heard: Mapping[str, Any] | None = None
) -> None:
    """Raises a SettingError that lists what there is, where names are not of numbers.

    Where several environments say it together, `heard` tells for each name whether it is.
    """
    array: Callable[[Any], Any] = lambda x: x if hasattr(x, "dtype") else np.asarray(x)
    is_number: Callable[[Any], bool] = lambda x: (
        np.ndim(x) == (heard is not None) and array(x).dtype.kind in "biuf"
    )
    named = {name: x for name, x in said.items() if isinstance(name, str) and name[:1] != "_"}
    known = sorted(name for name, x in named.items() if is_number(x))
    for name in names:
        if not (name in known if heard is None else heard[name]):
            raise SettingError(
                f"info must be of numbers that the environment says, got {name!r}; it says "
                f"{', '.join(known) or 'none: see info in rlws/environments/README.md'}"
            )
