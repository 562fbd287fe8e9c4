"""A JAX environment as a dm_env one, for the host loop, for debugging and for pictures."""

import functools
from collections.abc import Callable
from typing import Any

import dm_env
import jax
import numpy as np

from rlws.environments.checks import check_device
from rlws.environments.info import episode_info
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.repeatable import RepeatableEnvironment
from rlws.numerics import streams
from rlws.types import Action, Array, Key, Observation


def episode_key(seed_key: Key, index: Array | int, episode: Array | int) -> Key:
    """Returns the key that `reset` of an episode gets, whoever runs the environment.

    Args:
      seed_key: `streams.key(seed, Stream.ENVIRONMENT)`, uint32 [2].
      index: which environment of the run, from 0.
      episode: which of its episodes, from 0.
    """
    return streams.draw(seed_key, index, episode)


_episode_key = jax.jit(episode_key)


def to_dm_env(environment: JaxEnvironment, seed: int = 0, index: int = 0) -> dm_env.Environment:
    """Returns environment `index` of the run with `seed`: jitted, and NumPy outside."""
    return _DmEnvironment(environment, seed, index)


def is_adapted(environment: dm_env.Environment) -> bool:
    """Returns whether `to_dm_env` made it."""
    return isinstance(environment, _DmEnvironment)


class _DmEnvironment(RepeatableEnvironment):
    def __init__(self, environment: JaxEnvironment, seed: int, index: int):
        self._environment, self._spec = environment, (spec := environment.spec())
        self._jit_reset, self._jit_step = jitted(environment)
        self._key, self._index = streams.key(seed, streams.Stream.ENVIRONMENT), index
        limit, frames = spec.max_episode_steps, environment.frames_per_second
        super().__init__(spec.observations, spec.actions, limit, frames)

    def begin(self) -> Observation:
        key = _episode_key(self._key, self._index, self.episode)
        self._state, timestep = self._jit_reset(key)
        return jax.tree.map(np.asarray, timestep.observation)

    def advance(self, action: Action) -> dm_env.TimeStep:
        # A Python int would compute in another type than the array a device trainer passes.
        cast = lambda spec, leaf: np.asarray(leaf, spec.dtype)
        action = jax.tree.map(cast, self._spec.actions, action)
        self._state, timestep = self._jit_step(self._state, action)
        # Leaf by leaf: for a few small arrays on a CPU, jax.device_get takes three times as long.
        step_type, reward, discount, observation = jax.tree.map(np.asarray, timestep)
        kind = dm_env.StepType(int(step_type))
        return dm_env.TimeStep(kind, reward[()], discount[()], observation)

    def reward_spec(self) -> Any:
        """Returns the spec of the reward."""
        return self._spec.rewards

    def discount_spec(self) -> Any:
        """Returns the spec of the discount."""
        return self._spec.discounts

    def episode_info(self) -> list[float]:
        """Returns what is kept of the episode, where anything is."""
        return np.asarray(episode_info(self._environment, self._state)).tolist()

    def render(self) -> np.ndarray:
        """Returns a picture of the current state, uint8 [height, width, 3]."""
        return self._environment.render(jax.device_get(self._state))


def jitted(environment: JaxEnvironment) -> tuple[Callable, Callable]:
    """Returns jitted `reset` and `step`; equal environments share them and compile once."""
    try:
        return _shared_jit(environment)
    except TypeError:  # an array among its settings, so it has no hash
        return _jit(environment)


def _jit(environment: JaxEnvironment) -> tuple[Callable, Callable]:
    check_device(environment)
    return jax.jit(environment.reset), jax.jit(environment.step)


_shared_jit = functools.lru_cache(maxsize=16)(_jit)
