"""What all trainers offer: an iterator over the progress of a run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import dm_env
import numpy as np

from rlws.actor import Actor
from rlws.adders import Adder
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.settings import PositiveInt, SettingError, Settings, change
from rlws.trainers import evaluation
from rlws.trainers.deadline import TIMEOUT
from rlws.types import Params


class Snapshot(NamedTuple):
    """A run at one instant: all that it takes to go on as if it had never stopped."""

    arrays: Mapping[str, Any]  # a tree, or what `trees.flatten` made of one
    facts: Mapping[str, Any]  # JSON-able


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
    spent: bool  # whether the budget is: this is the run's last report
    # Takes the state just before this report was made, valid until the iterator goes on. A run
    # resumed from it begins with the same report.
    snapshot: Callable[[], Snapshot]
    halted: bool = False  # whether NaN or infinity, or `max_updates`, ended the run
    stopped: bool = False  # whether `stop` did: nothing is reported but counters and the snapshot
    warnings: tuple[str, ...] = ()  # what whoever follows the run should know, said once
    # [n] each, of the same episodes: what is kept of their info, in the order of `WithInfo`.
    info: Sequence[np.ndarray] = ()

    @classmethod
    def of(cls, steps: int, episodes: int, updates: int, ended: np.ndarray, **also: Any) -> Self:
        """Returns it for what ended, a table [n, 2 + k] of returns, lengths and info."""
        returns, lengths, *info = ended.T
        return cls(steps, episodes, updates, returns, lengths, info=info, **also)


class Member(NamedTuple):
    """One run of several."""

    seed: int
    settings: dict[str, Any]  # changes to the agent's configuration, by dotted name


def never(*_: Any) -> bool:
    """Returns False."""
    return False


class Control(NamedTuple):
    """How far a run goes and when it reports; the arguments of `Trainer.train`."""

    steps: int | None = None
    episodes: int | None = None
    report_period: int = 1000
    resume: Snapshot | None = None
    stop: Callable[[], bool] = never
    max_updates: int | None = None
    ended: Callable[[int], bool] = never  # of several runs: whether one goes no further


PARTS = {"actor": Actor, "learner": Learner, "adder": Adder, "evaluator": Actor}


class Trainer(Settings):
    """Runs an agent in an environment. Trainers hold the only `jax.jit` of the framework."""

    num_envs: PositiveInt = 1  # environments that are acted in at once

    # Whether evaluation goes on beside training, so that its result comes later than its report.
    evaluates_apart: ClassVar[bool] = False

    @property
    def columns(self) -> int:
        """How many environments the adder sees side by side."""
        return self.num_envs

    @property
    def timeout(self) -> float:
        """Seconds an environment on a host may take to answer, wherever a run asks it."""
        return getattr(self, "environment_timeout", TIMEOUT)

    def check(self, environment: Any) -> None:
        """Raises a SettingError if this trainer cannot run `environment`."""

    def check_agent(self, agent: Agent) -> None:
        """Raises a SettingError if this trainer cannot run `agent`."""
        if not isinstance(agent, Agent):
            raise SettingError(f"make must return an Agent, got {agent!r}")
        for name, kind in PARTS.items():
            if not isinstance(part := getattr(agent, name), kind):
                raise SettingError(
                    f"the agent's {name} must be of class {kind.__name__}, got {part!r}"
                )
        agent.adder.schedule(self.columns)

    def evaluator(
        self, config: AgentConfig, agent: Agent, environment: Any, episodes: int, num_envs: int
    ) -> Callable[[Params, int], Callable[[], Any]]:
        """Returns what begins an evaluation of parameters with a seed, and returns a way to wait.

        What that returns, and the arguments, are those of `evaluation.evaluator`; `config` is of
        the agent.
        """
        evaluate = evaluation.evaluator(agent, environment, episodes, self.timeout, num_envs)

        def begin(params, seed):
            found = evaluate(params, seed)
            return lambda: found

        return begin

    def exact(self, environment: dm_env.Environment) -> bool:
        """Returns whether runs in such an environment resume as if they had never stopped."""
        return True

    def train(
        self,
        config: AgentConfig,
        environment: Any,
        *,
        seed: int = 0,
        steps: int | None = None,
        episodes: int | None = None,
        report_period: int = 1000,
        resume: Snapshot | None = None,
        stop: Callable[[], bool] = never,
        max_updates: int | None = None,
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
          resume: where to go on from, with the same agent, environment and seed; by default the
            beginning.
          stop: is asked now and then whether the run shall stop where it is.
          max_updates: halts in place of the update after so many, with its batch at hand.

        Yields:
          The progress, first before the first step and last at the end. Nothing about the run
          depends on when or whether its reports are looked at.
        """
        raise NotImplementedError

    def train_all(
        self,
        config: AgentConfig,
        environment: Any,
        members: list[Member],
        *,
        resume: Snapshot | None = None,
        ended: Callable[[int], bool] = never,
        **control: Any,
    ) -> Iterator[dict[int, Progress]]:
        """Trains several runs, here one after the other; other arguments are those of `train`.

        Args:
          config, environment: of all.
          members: what sets them apart.
          resume: where to go on from.
          ended: is asked after each report of a member whether it goes no further; it stays as the
            report has it then, whatever becomes of the others.
          control: other arguments of `train`.

        Yields:
          The progress of some members, by index. Each is as if it had run alone, but maybe for when
          it is reported. All progress yielded together has the same snapshot.
        """
        begin = 0 if resume is None else int(resume.facts["member"])
        for i, (seed, settings) in enumerate(members[begin:], begin):
            if ended(i):
                continue
            own = resume if i == begin else None
            changed = change(config, settings)
            for progress in self.train(changed, environment, seed=seed, resume=own, **control):
                yield {i: progress._replace(snapshot=partial(_of_member, progress.snapshot, i))}
                if progress.stopped:
                    return
                if ended(i):
                    break

    def member(self, snapshot: Snapshot, member: int) -> Snapshot:
        """Returns one member's part of a snapshot of `train_all`, as if it had run alone."""
        return Snapshot(snapshot.arrays, {**snapshot.facts, "member": 0})


def _of_member(snapshot: Callable[[], Snapshot], member: int) -> Snapshot:
    arrays, facts = snapshot()
    return Snapshot(arrays, {**facts, "member": member})


def limits(steps: int | None, episodes: int | None) -> tuple[float, float]:
    """Returns the budget with infinity for None.

    Raises:
      SettingError: there is no limit, or a negative one.
    """
    if steps is None and episodes is None:
        raise SettingError("steps or episodes must limit the run, got None for both; set steps")
    for name, value in {"steps": steps, "episodes": episodes}.items():
        if value is not None and value < 0:
            raise SettingError(f"{name} must be at least 0, got {value}; 0 only evaluates")
    return math.inf if steps is None else steps, math.inf if episodes is None else episodes


def next_multiple(count: int, period: int) -> int:
    """Returns the first multiple of `period` beyond `count`."""
    return (count // period + 1) * period
