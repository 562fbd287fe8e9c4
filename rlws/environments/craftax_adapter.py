"""Craftax's environments as ours, by names such as "craftax:Classic-Symbolic-v1".

Matthews et al., 2024, "Craftax: A Lightning-Fast Benchmark for Open-Ended Reinforcement Learning".
https://github.com/MichaelTMatthews/Craftax
"""

import contextlib
import functools
import importlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from craftax import craftax_env
from dm_env import specs

from rlws.environments import jax_environment
from rlws.environments.names import unknown
from rlws.numerics import streams
from rlws.settings import INT, PositiveInt
from rlws.types import Action, EnvironmentSpec, Key

_NAMES = ("Symbolic-v1", "Pixels-v1", "Classic-Symbolic-v1", "Classic-Pixels-v1")


class State(NamedTuple):
    """An environment in the middle of an episode."""

    inner: Any  # Craftax's state, which counts the steps
    key: Key  # of the episode, uint32 [2]


class CraftaxEnvironment(jax_environment.JaxEnvironment):
    """Craftax, or Craftax-Classic, with its default parameters; observations are float32.

    Death, and the defeat of the last boss, end an episode with discount 0, the time limit with
    discount 1.

    Raises:
      SettingError: Craftax has nothing by this name.
    """

    name: str  # such as Classic-Symbolic-v1
    max_episode_steps: PositiveInt | None = None  # None: Craftax's own limit

    frames_per_second = 8  # there is no time but that of steps

    def __post_init__(self):
        super().__post_init__()
        _made(self.name)

    def spec(self) -> EnvironmentSpec:
        """Returns the specs of Craftax's spaces."""
        env, params = _made(self.name)
        shape = env.observation_space(params).shape
        # Craftax says 1, but attributes that have grown, and what grows with them, are more.
        high = np.inf if self.name == "Symbolic-v1" else 1.0
        return EnvironmentSpec(
            observations=specs.BoundedArray(shape, np.float32, 0.0, high, "observation"),
            actions=specs.DiscreteArray(env.num_actions, np.int32, "action"),
            max_episode_steps=self._limit(),
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode, in a world of its own."""
        env, params = _made(self.name)
        reset_key, step_key = jax.random.key_data(jax.random.split(key))
        observation, inner = env.reset_env(reset_key, params)
        state = State(jax_environment.strong(inner), step_key)
        return state, jax_environment.first(observation)

    def step_with_info(self, state: State, action: Action) -> jax_environment.Told:
        """Takes a step of Craftax without a limit, so that what ends by itself is known.

        Returns Craftax's info, too: its achievements.
        """
        env, params = _made(self.name)
        endless = params.replace(max_timesteps=INT)  # it decides nothing but the end
        observation, inner, reward, terminated, info = env.step_env(
            _step_key(state), state.inner, action, endless
        )
        truncated = inner.timestep >= self._limit()
        timestep = jax_environment.following(observation, reward, terminated, truncated)
        return State(jax_environment.strong(inner), state.key), timestep, info

    def render(self, state: State) -> np.ndarray:
        """Returns what the player sees, uint8 [208, 176, 3], or [144, 144, 3] in Classic."""
        return np.asarray(_drawing(self.name)(state.inner))

    def _limit(self) -> int:
        return self.max_episode_steps or _made(self.name)[1].max_timesteps


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows Craftax's environments by."""
    return [f"craftax:{name}" for name in _NAMES]


@functools.cache
def _made(name: str) -> tuple[Any, Any]:
    """Returns Craftax's environment and its parameters; the same ones in every trace."""
    if name not in _NAMES:
        whole = f"craftax:{name.removeprefix('Craftax-')}"  # as Craftax itself calls them
        meant = [whole] if whole in names() else names()
        raise unknown(f"craftax:{name}", meant, f"it must be one of {', '.join(names())}")
    # Its modules compute constants with JAX, and tell of textures.
    with jax.ensure_compile_time_eval(), contextlib.redirect_stdout(io.StringIO()):
        env = craftax_env.make_craftax_env_from_name(f"Craftax-{name}", auto_reset=False)
        return env, env.default_params


@functools.cache
def _drawing(name: str) -> Callable[[Any], Any]:
    """Returns the compiled function from a state to a picture."""
    kind = "craftax_classic" if name.startswith("Classic") else "craftax"
    with jax.ensure_compile_time_eval(), contextlib.redirect_stdout(io.StringIO()):
        constants, renderer = (
            importlib.import_module(f"craftax.{kind}.{module}")
            for module in ("constants", "renderer")
        )
        draw = renderer.make_craftax_pixel_renderer(constants.BLOCK_PIXEL_SIZE_IMG)
    return jax.jit(lambda state: draw(state).clip(0, 255).astype(jnp.uint8))


def _step_key(state: State) -> Key:
    """Returns the key of the next step; as data, as it becomes part of Craftax's state."""
    return jax.random.key_data(streams.draw(state.key, 0, state.inner.timestep))
