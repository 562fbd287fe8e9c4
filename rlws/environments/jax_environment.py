"""Environments as pure JAX functions, with dm_env semantics."""

from typing import Any, TypeAlias

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.settings import SettingError, Settings
from rlws.types import Action, Array, EnvironmentSpec, Key, Observation

# State, timestep, and what was said beside it.
Told: TypeAlias = tuple[Any, dm_env.TimeStep, dict[str, Array]]


class JaxEnvironment(Settings):
    """An environment of pure functions of one state; trainers vmap, scan and restart it.

    Timesteps have array fields of fixed type: `step_type` int32, `reward` and `discount` float32,
    with reward 0 and discount 1 on FIRST. Whoever runs the environment calls `reset` after a LAST
    timestep (trainers and `to_dm_env` do); `step` never sees a finished episode's state, or its
    result is thrown away. A stochastic environment keeps a key in its state.
    """

    frames_per_second = 30  # of a film in real time; not a setting

    def spec(self) -> EnvironmentSpec:
        """Returns the specs of the environment."""
        raise NotImplementedError

    def reset(self, key: Key) -> tuple[Any, dm_env.TimeStep]:
        """Begins an episode; returns its state and FIRST timestep."""
        raise NotImplementedError

    def step(self, state: Any, action: Action) -> tuple[Any, dm_env.TimeStep]:
        """Returns the next state and its MID or LAST timestep, those of `step_with_info`."""
        return self.step_with_info(state, action)[:2]

    def step_with_info(self, state: Any, action: Action) -> Told:
        """Returns what `step` does, and numbers by name, such as whether it was a success.

        They are only computed where somebody asked for them: see `environments.info`. An
        environment without any says `step`, one with some says this.
        """
        if type(self).step is JaxEnvironment.step:
            raise NotImplementedError
        return *self.step(state, action), {}

    def render(self, state: Any) -> Any:
        """Returns a picture of one (host) state, uint8 [height, width, 3]."""
        raise NotImplementedError(f"{type(self).__name__} has no renderer")


def first(observation: Observation) -> dm_env.TimeStep:
    """Returns the FIRST timestep of an episode."""
    step_type = jnp.int32(dm_env.StepType.FIRST)
    return dm_env.TimeStep(step_type, jnp.float32(0), jnp.float32(1), observation)


def following(
    observation: Observation,
    reward: Array | float,
    terminated: Array | bool,
    truncated: Array | bool,
) -> dm_env.TimeStep:
    """Returns the timestep after a step; discount 0 where `terminated`, even if also truncated."""
    terminated = jnp.asarray(terminated)
    step_type = jnp.where(terminated | truncated, dm_env.StepType.LAST, dm_env.StepType.MID)
    discount = 1.0 - terminated.astype(jnp.float32)
    if reward is not None:  # which is for `check_device` to name
        reward = jnp.asarray(reward, jnp.float32)
    return dm_env.TimeStep(step_type.astype(jnp.int32), reward, discount, observation)


def strong(tree: Any) -> Any:
    """Returns the tree with strong types; weak ones would have every program compiled twice."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)


def spec(environment: JaxEnvironment | dm_env.Environment) -> EnvironmentSpec:
    """Returns all an agent may know of `environment`, of either kind.

    Raises:
      SettingError: its time limit is none, or what it shows or takes are no numbers.
    """
    found = environment.spec() if isinstance(environment, JaxEnvironment) else _spec(environment)
    for leaf in jax.tree.leaves((found.observations, found.actions)):
        if isinstance(leaf, specs.Array) and np.dtype(leaf.dtype).kind not in "biuf":
            raise SettingError(
                f"environment: observations and actions must be numbers, got {leaf} of "
                f"{type(environment).__name__}; encode it"
            )
    limit = found.max_episode_steps
    if limit is not None and not (type(limit) is int and limit > 0):
        raise SettingError(
            f"environment: max_episode_steps must be a whole number above 0 or None, got {limit!r} "
            f"of {type(environment).__name__}"
        )
    return found


def _spec(environment: dm_env.Environment) -> EnvironmentSpec:
    return EnvironmentSpec(
        observations=environment.observation_spec(),
        actions=environment.action_spec(),
        rewards=environment.reward_spec(),
        discounts=environment.discount_spec(),
        max_episode_steps=getattr(environment, "max_episode_steps", None),
    )
