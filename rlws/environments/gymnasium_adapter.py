"""Any gymnasium environment as a dm_env one."""

import inspect
import sys
from functools import partial
from typing import Any

import dm_env
import gymnasium
import numpy as np

from rlws.environments import gymnasium_spaces as spaces
from rlws.environments import opengl
from rlws.environments.checks import EnvironmentFault, closed_on_error, not_gymnasiums, number
from rlws.environments.gymnasium_ids import missing, names, registered
from rlws.environments.names import takes_any
from rlws.environments.repeatable import RepeatableEnvironment, rate
from rlws.numerics import streams
from rlws.settings import SettingError
from rlws.types import Action, Observation

__all__ = ["GymEnvironment", "names"]

_FIRST, _MID, _LAST = dm_env.StepType
# Skips the argument handling of TimeStep.__new__, a third of the cost of making one.
_timestep = partial(tuple.__new__, dm_env.TimeStep)


class GymEnvironment(RepeatableEnvironment):
    """A gymnasium environment with dm_env semantics.

    The discount is 0 where the environment terminates, 1 elsewhere, so also where only a time limit
    truncates the episode. Observations may be the environment's own arrays: copy what you keep.
    """

    def __init__(
        self,
        id_or_env: str | gymnasium.Env,
        seed: int = 0,
        index: int = 0,
        render: bool = False,
        max_episode_steps: int | None = None,
        **settings: Any,
    ):
        """Makes environment `index` of the run with `seed`.

        Args:
          id_or_env: "CartPole-v1", "module:Id-v0" to import `module` first, or an environment.
          render: whether `render` will be called; for an id only.
          max_episode_steps: replaces the registered limit of an id; wraps an environment in one.
          settings: what the class behind an id takes besides, such as is_slippery of FrozenLake.

        Raises:
          SettingError: an unknown id or setting, a missing package, a space with no spec, a limit
            below 1.
        """
        env = _build(id_or_env, render, max_episode_steps, settings)
        known = env.spec.max_episode_steps if env.spec else None
        with closed_on_error(env):
            _check_reset(env)
            super().__init__(
                spaces.to_spec(getattr(env, "observation_space", None), "observation"),
                spaces.to_spec(getattr(env, "action_space", None), "action"),
                max_episode_steps or known,
                rate((env.metadata or {}).get("render_fps")),
            )
        self._env, self._env_step, self._env_reset = env, env.step, env.reset
        self._observe = spaces.from_gymnasium(env.observation_space)
        self._act = spaces.to_gymnasium(env.action_space)
        self._seed, self._index = seed, index

    def begin(self) -> Observation:
        counters = streams.Stream.ENVIRONMENT, self._index, self.episode
        found = self._env_reset(seed=streams.host_seed(self._seed, *counters))
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
            raise not_gymnasiums("reset", found)
        return self._observe(found[0])

    def advance(self, action: Action) -> dm_env.TimeStep:
        found = self._env_step(self._act(action))
        try:
            observation, reward, terminated, truncated, self._info = found
        except (TypeError, ValueError):
            raise not_gymnasiums("step", found) from None
        if type(terminated) is not bool or type(truncated) is not bool:
            terminated, truncated = _flag("terminated", terminated), _flag("truncated", truncated)
        step_type = _LAST if terminated or truncated else _MID
        discount = 0.0 if terminated else 1.0
        return _timestep((step_type, number(reward), discount, self._observe(observation)))

    def info(self) -> dict[str, Any]:
        """Returns what the environment said with the last step."""
        return self._info

    def render(self) -> np.ndarray:
        """Returns a picture of the environment, uint8 [height, width, 3].

        Raises:
          SettingError: the environment was not made to draw pictures, or MuJoCo has no OpenGL.
        """
        mode = self._env.render_mode
        try:
            picture = self._env.render() if mode == "rgb_array" else None
        except Exception as error:
            if _is_mujoco(self._env):
                raise opengl.no_picture(error) from error
            raise
        if mode != "rgb_array":
            raise SettingError(f"render mode must be 'rgb_array', got {mode!r}; pass render=True")
        if picture is None:
            raise SettingError("render must return a picture, got None")
        return np.ascontiguousarray(picture)  # some are drawn upside down

    def close(self) -> None:
        """Frees what the environment holds, such as its window."""
        self._env.close()


def _flag(name: str, found: Any) -> bool:
    x = np.asarray(found)
    if x.shape or x.dtype.kind not in "biu" or x not in (0, 1):
        raise EnvironmentFault(f"step: {name} must be a bool, got {found!r}; mend the environment")
    return bool(x)


def _check_reset(env: Any) -> None:
    while env is not None:
        takes = inspect.signature(env.reset).parameters
        if "seed" not in takes and not takes_any(takes):
            raise EnvironmentFault(
                f"reset of {type(env).__name__} must take seed and options, as gymnasium's do, got "
                f"reset{inspect.signature(env.reset)}; mend it: reset(self, *, seed=None, "
                "options=None)"
            )
        env = getattr(env, "env", None)


def _is_mujoco(env: gymnasium.Env) -> bool:
    module = sys.modules.get("gymnasium.envs.mujoco")
    return module is not None and isinstance(env.unwrapped, module.MujocoEnv)


def _build(
    id_or_env: Any, render: bool, limit: int | None, settings: dict[str, Any]
) -> gymnasium.Env:
    if limit is not None and limit < 1:
        raise SettingError(f"max_episode_steps must be at least 1, got {limit}; None keeps it")
    if not isinstance(id_or_env, str | gymnasium.Env):
        raise SettingError(
            f"an environment must be an id or a gymnasium.Env, got {id_or_env!r}; one of the older "
            "gym is made one by shimmy's GymV21CompatibilityV0"
        )
    if isinstance(id_or_env, gymnasium.Env):
        return gymnasium.wrappers.TimeLimit(id_or_env, limit) if limit else id_or_env
    mode = {"render_mode": "rgb_array"} if render else {}
    try:
        known = registered(id_or_env, settings)
        return gymnasium.make(known, limit, disable_env_checker=True, **mode)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise missing(id_or_env, error) from error
