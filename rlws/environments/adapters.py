"""A JAX environment as a dm_env one, for the host loop, for debugging and for pictures."""

import functools
from collections.abc import Callable
from typing import Any

import dm_env
import jax
import numpy as np

from rlws.environments.jax_environment import JaxEnvironment
from rlws.numerics import streams
from rlws.types import Action, Array, Key


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
    """Returns environment `index` of the run with `seed`: jitted, and NumPy outside.

    Its attributes: `episode`, the number of the next episode from 0, and `max_episode_steps`.
    """
    return _DmEnvironment(environment, seed, index)


def is_adapted(environment: dm_env.Environment) -> bool:
    """Returns whether `to_dm_env` made it."""
    return isinstance(environment, _DmEnvironment)


class _DmEnvironment(dm_env.Environment):
    def __init__(self, environment: JaxEnvironment, seed: int, index: int):
        self._environment, self._spec = environment, environment.spec()
        self._jit_reset, self._jit_step = _jitted(environment)
        self._key, self._index = streams.key(seed, streams.Stream.ENVIRONMENT), index
        self._state, self._restart = None, True
        self.episode = 0
        self.max_episode_steps = self._spec.max_episode_steps
        self.frames_per_second = environment.frames_per_second

    def reset(self) -> dm_env.TimeStep:
        """Begins the next episode; returns its FIRST timestep, reward and discount None."""
        key = _episode_key(self._key, self._index, self.episode)
        self._state, timestep = self._jit_reset(key)
        self.episode += 1
        self._restart = False
        return dm_env.restart(_to_numpy(timestep.observation))

    def step(self, action: Action) -> dm_env.TimeStep:
        """Takes `action`; before the first reset and after LAST, begins an episode instead."""
        if self._restart:
            return self.reset()
        # A Python int would compute in another type than the array a device trainer passes.
        cast = lambda spec, leaf: np.asarray(leaf, spec.dtype)
        action = jax.tree.map(cast, self._spec.actions, action)
        self._state, timestep = self._jit_step(self._state, action)
        timestep = _to_numpy(timestep)
        step_type = dm_env.StepType(int(timestep.step_type))
        self._restart = step_type is dm_env.StepType.LAST
        return timestep._replace(step_type=step_type)

    def observation_spec(self) -> Any:
        """Returns the spec of one observation."""
        return self._spec.observations

    def action_spec(self) -> Any:
        """Returns the spec of one action."""
        return self._spec.actions

    def reward_spec(self) -> Any:
        """Returns the spec of the reward."""
        return self._spec.rewards

    def discount_spec(self) -> Any:
        """Returns the spec of the discount."""
        return self._spec.discounts

    def render(self) -> np.ndarray:
        """Returns a picture of the current state, uint8 [height, width, 3]."""
        return self._environment.render(jax.device_get(self._state))


def _jitted(environment: JaxEnvironment) -> tuple[Callable, Callable]:
    """Returns jitted `reset` and `step`; equal environments share them and compile once."""
    try:
        hash(environment)
    except TypeError:  # an array among its settings
        return _jit(environment)
    return _shared_jit(environment)


def _jit(environment: JaxEnvironment) -> tuple[Callable, Callable]:
    return jax.jit(environment.reset), jax.jit(environment.step)


_shared_jit = functools.lru_cache(maxsize=16)(_jit)


def _to_numpy(nest: Any) -> Any:
    # Leaf by leaf: for a few small arrays on a CPU, jax.device_get takes three times as long.
    return jax.tree.map(np.asarray, nest)
