"""Environments stepped from Python, with dm_env semantics."""

import math
from typing import Any

import dm_env

from rlws.types import Action, Observation


def rate(told: Any) -> float:
    """Returns frames per second as an environment tells them, 30 where they are none."""
    try:
        found = float(told)
    except (TypeError, ValueError):
        return 30.0
    return found if 0.0 < found < math.inf else 30.0


class RepeatableEnvironment(dm_env.Environment):
    """A dm_env environment that can play each of its episodes again, by number.

    A subclass says how an episode begins and goes on; when one does is written here.

    Attributes:
      episode: number of the next episode from 0; its seed depends on the run's, the index of the
        environment and it alone.
      max_episode_steps: the time limit, or None.
      frames_per_second: of a film in real time.
    """

    def __init__(
        self,
        observations: Any,
        actions: Any,
        max_episode_steps: int | None,
        frames_per_second: float,
    ):
        self._observation_spec, self._action_spec = observations, actions
        self.max_episode_steps, self.frames_per_second = max_episode_steps, frames_per_second
        self.episode, self._restart = 0, True

    def begin(self) -> Observation:
        """Begins the episode whose number is `episode`; returns its first observation."""
        raise NotImplementedError

    def advance(self, action: Action) -> dm_env.TimeStep:
        """Takes `action` within an episode; returns a MID or LAST timestep."""
        raise NotImplementedError

    def reset(self) -> dm_env.TimeStep:
        """Begins the next episode; returns its FIRST timestep, reward and discount None."""
        observation = self.begin()
        self.episode += 1
        self._restart = False
        return dm_env.restart(observation)

    def step(self, action: Action) -> dm_env.TimeStep:
        """Takes `action`; before the first reset and after LAST, begins an episode instead."""
        if self._restart:
            return self.reset()
        timestep = self.advance(action)
        self._restart = timestep.step_type == dm_env.StepType.LAST
        return timestep

    def observation_spec(self) -> Any:
        """Returns the spec of one observation, nested as observations are."""
        return self._observation_spec

    def action_spec(self) -> Any:
        """Returns the spec of one action, nested as actions are."""
        return self._action_spec
