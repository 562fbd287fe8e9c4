"""gymnax's environments as ours.

Lange, 2022, "gymnax: A JAX-based Reinforcement Learning Environment Library".
https://github.com/RobertTLange/gymnax
"""

import functools
from typing import Any, NamedTuple

import dm_env
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs
from gymnax.environments import spaces

from rlws.environments import jax_environment
from rlws.environments.names import check_known
from rlws.numerics import streams
from rlws.settings import PositiveInt, SettingError
from rlws.types import Action, Array, EnvironmentSpec, Key, Observation


class State(NamedTuple):
    """An environment in the middle of an episode."""

    inner: Any  # gymnax's state
    key: Key  # of the episode, uint32 [2]
    time: Array  # int32 [], steps taken


class GymnaxEnvironment(jax_environment.JaxEnvironment):
    """The environment that gymnax has by this name, with gymnax's default parameters.

    Observations, rewards and continuous actions are float32; discrete ones int32, counting from 0.

    Raises:
      SettingError: gymnax has nothing by this name.
    """

    name: str  # such as CartPole-v1
    max_episode_steps: PositiveInt | None = None  # None: gymnax's own limit

    def __post_init__(self):
        super().__post_init__()
        _made(self.name, self.max_episode_steps)

    def spec(self) -> EnvironmentSpec:
        """Returns the specs of gymnax's spaces."""
        env, params = _made(self.name, self.max_episode_steps)
        with jax.ensure_compile_time_eval():  # gymnax computes bounds with JAX
            return EnvironmentSpec(
                observations=_to_spec(env.observation_space(params), "observation"),
                actions=_to_spec(env.action_space(params), "action"),
                max_episode_steps=int(params.max_steps_in_episode),
            )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode."""
        env, params = _made(self.name, self.max_episode_steps)
        reset_key, step_key = jax.random.split(key)
        observation, inner = env.reset_env(reset_key, params)
        state = State(jax_environment.strong(inner), jax.random.key_data(step_key), jnp.int32(0))
        return state, jax_environment.first(self._observe(observation))

    def step_with_info(self, state: State, action: Action) -> jax_environment.Told:
        """Takes a step with `step_env`, which, unlike gymnax's `step`, does not restart.

        Returns gymnax's info, too.
        """
        env, params = _made(self.name, self.max_episode_steps)
        # Of a key that stays and a count: where nothing is drawn, XLA leaves all of it out.
        key = streams.draw(state.key, 0, state.time)
        observation, inner, reward, terminated, info = env.step_env(
            key, state.inner, action, params
        )
        truncated = env.is_truncated(inner, params)
        timestep = jax_environment.following(
            self._observe(observation), reward, terminated, truncated
        )
        return State(jax_environment.strong(inner), state.key, state.time + 1), timestep, info

    def _observe(self, observation: Any) -> Observation:
        x, dtype = jnp.asarray(observation), self.spec().observations.dtype
        return x.astype(dtype) if np.can_cast(x.dtype, dtype, "same_kind") else x


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows gymnax's environments by."""
    return [f"gymnax:{name}" for name in gymnax.registered_envs]


@functools.cache
def _made(name: str, limit: int | None) -> tuple[Any, Any]:
    """Returns gymnax's environment and its parameters; the same ones in every trace."""
    check_known(f"gymnax:{name}", names(), "gymnax.registered_envs lists what gymnax has")
    with jax.ensure_compile_time_eval():
        env, params = gymnax.make(name)
    if limit is not None:
        kind = type(params.max_steps_in_episode)  # of one environment, float
        params = params.replace(max_steps_in_episode=kind(limit))
    return env, params


def _to_spec(space: spaces.Space, name: str) -> specs.Array:
    if isinstance(space, spaces.Discrete):
        return specs.DiscreteArray(int(space.n), np.int32, name)
    if isinstance(space, spaces.Box):
        largest = np.finfo(np.float32).max  # gymnax's word for infinity
        low, high = (np.broadcast_to(np.float32(x), space.shape) for x in (space.low, space.high))
        low, high = np.where(low <= -largest, -np.inf, low), np.where(high >= largest, np.inf, high)
        return specs.BoundedArray(space.shape, np.float32, low, high, name)
    raise SettingError(f"{name} space must be Box or Discrete, got {space}")
