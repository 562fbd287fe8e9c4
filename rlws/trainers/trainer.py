"""What all trainers offer: an iterator over the progress of a run."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from rlws.agent import Agent, AgentConfig
from rlws.settings import PositiveInt, SettingError, Settings
from rlws.types import Params


class Progress(NamedTuple):
    """Where a run stands, and what happened since the last report."""

    steps: int  # environment steps so far; the step from a LAST to a FIRST timestep is none
    episodes: int  # episodes ended so far
    updates: int  # updates of the learner so far
    returns: np.ndarray  # [n], undiscounted, of the episodes ended since the last report
    lengths: np.ndarray  # [n], their steps
    metrics: dict[str, float]  # the learner's, averaged over the updates since the last report
    agent: Agent
    params: Params  # valid until the iterator goes on: trainers update them in place


class Trainer(Settings):
    """Runs an agent in an environment. Trainers hold the only `jax.jit` of the framework."""

    num_envs: PositiveInt = 1

    def check(self, environment: Any) -> None:
        """Raises a SettingError if this trainer cannot run `environment`."""

    def train(
        self,
        config: AgentConfig,
        environment: Any,
        *,
        seed: int = 0,
        steps: int | None = None,
        episodes: int | None = None,
        report_period: int = 1000,
    ) -> Iterator[Progress]:
        """Trains until the first row of steps at or beyond the budget (`steps`, `episodes`).

        Args:
          config: settings of the agent.
          environment: a name for `environments.make`, a JaxEnvironment, or (host only) a function
            of (seed, index) that returns a dm_env environment.
          seed: decides everything random, with the environment and the settings.
          steps: environment steps to take, over all environments.
          episodes: episodes to end; with both, whichever comes first.
          report_period: environment steps between reports.

        Yields:
          The progress, first before the first step and last at the end. Nothing about the run
          depends on when or whether its reports are looked at.
        """
        raise NotImplementedError


class Budget(NamedTuple):
    """How long to train: until either limit is reached; None is no limit."""

    steps: int | None = None
    episodes: int | None = None

    def check(self) -> "Budget":
        """Returns the budget if it is one; raises a SettingError otherwise."""
        if self.steps is None and self.episodes is None:
            raise SettingError("a budget must limit steps or episodes, got neither; set steps")
        for name, value in self._asdict().items():
            if value is not None and value < 0:
                raise SettingError(f"{name} must be at least 0, got {value}; 0 only evaluates")
        return self

    def spent(self, steps: int, episodes: int) -> bool:
        return (self.steps is not None and steps >= self.steps) or (
            self.episodes is not None and episodes >= self.episodes
        )
