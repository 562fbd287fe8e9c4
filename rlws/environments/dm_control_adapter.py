"""The DeepMind Control Suite's environments as ours, by names such as "dm:cartpole-swingup".

Tassa et al., 2018, "DeepMind Control Suite". https://github.com/google-deepmind/dm_control
"""

import importlib.metadata
import math
from functools import partial
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from rlws.environments import opengl, rules
from rlws.environments.checks import number
from rlws.environments.names import check_known
from rlws.environments.repeatable import RepeatableEnvironment
from rlws.numerics import streams
from rlws.settings import SettingError
from rlws.types import Action, Observation

# Skips the argument handling of TimeStep.__new__, as the gymnasium adapter does.
_timestep = partial(tuple.__new__, dm_env.TimeStep)


def _import() -> tuple[Any, Any]:
    import mujoco
    from dm_control import suite

    return mujoco, suite


_mujoco, _suite = opengl.imported(_import)


class DmControlEnvironment(RepeatableEnvironment):
    """An environment of the suite; the numbers it takes and returns are float32.

    Observations are the suite's dictionaries, discounts its own: 1 where the time limit cuts an
    episode, which few tasks end by themselves. What a task draws when it is made (the springs of
    "lqr") is the same in all runs, or they would not be of the same problem.
    """

    def __init__(
        self,
        name_or_env: str | dm_env.Environment,
        seed: int = 0,
        index: int = 0,
        max_episode_steps: int | None = None,
    ):
        """Makes environment `index` of the run with `seed`.

        Args:
          name_or_env: "cartpole-swingup", or a `dm_control.rl.control.Environment` whose task has a
            `random`, as all of the suite do.
          max_episode_steps: replaces the suite's own time limit.

        Raises:
          SettingError: an unknown name, a limit below 1, a MuJoCo that the suite does not know.
        """
        if max_episode_steps is not None and max_episode_steps < 1:
            raise SettingError(
                f"max_episode_steps must be at least 1, got {max_episode_steps}; None keeps it"
            )
        env: Any = _load(name_or_env) if isinstance(name_or_env, str) else name_or_env
        if max_episode_steps is not None:
            env._step_limit = max_episode_steps  # it has no other name
        self._env, self._seed, self._index = env, seed, index
        observations = {
            key: specs.Array(spec.shape, np.float32, f"observation/{key}")
            for key, spec in env.observation_spec().items()
        }
        self._narrow = {key: rules.narrowed(spec) for key, spec in observations.items()}
        limit = env._step_limit  # seconds divided by seconds
        limit = None if math.isinf(limit) else math.ceil(limit)
        actions = _to_actions(env.action_spec())
        super().__init__(observations, actions, limit, 1 / env.control_timestep())

    def begin(self) -> Observation:
        counters = streams.Stream.ENVIRONMENT, self._index, self.episode
        self._env.task.random.seed(streams.host_seed(self._seed, *counters))
        return self._observe(self._env.reset().observation)

    def advance(self, action: Action) -> dm_env.TimeStep:
        step_type, reward, discount, observation = self._env.step(action)
        return _timestep((step_type, number(reward), number(discount), self._observe(observation)))

    def _observe(self, observation: Any) -> dict[str, np.ndarray]:
        return {key: narrow(observation[key]) for key, narrow in self._narrow.items()}

    def render(self) -> np.ndarray:
        """Returns a picture from the environment's first camera, uint8 [480, 640, 3].

        Raises:
          SettingError: there is no OpenGL.
        """
        try:
            picture = self._env.physics.render(480, 640, camera_id=0)
        except Exception as error:
            raise opengl.no_picture(error) from error
        return np.ascontiguousarray(picture)  # they are drawn upside down

    def close(self) -> None:
        """Frees the physics, and OpenGL where it was used."""
        self._env.physics.free()


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows the suite's tasks by."""
    return [f"dm:{domain}-{task}" for domain, task in _suite.ALL_TASKS]


def _load(name: str) -> Any:
    check_known(f"dm:{name}", names(), "dm_control.suite.ALL_TASKS lists what the suite has")
    domain, _, task = name.partition("-")
    try:
        return _suite.load(domain, task, task_kwargs={"random": 0})
    except AttributeError as error:  # of a structure of MuJoCo's; dm_control bounds none from above
        ours, theirs = map(importlib.metadata.version, ("dm_control", "mujoco"))
        raise SettingError(
            f"environment 'dm:{name}': dm_control {ours} does not work with mujoco {theirs}: "
            f"pip install 'rlws[dm_control]' ({error})"
        ) from error


def _to_actions(spec: specs.BoundedArray) -> specs.Array:
    largest = _mujoco.mjMAXVAL  # MuJoCo's word for infinity
    if (spec.minimum <= -largest).all() and (spec.maximum >= largest).all():
        return specs.Array(spec.shape, np.float32, "action")
    low = np.where(spec.minimum <= -largest, -np.inf, spec.minimum)
    high = np.where(spec.maximum >= largest, np.inf, spec.maximum)
    return specs.BoundedArray(spec.shape, np.float32, low, high, "action")
