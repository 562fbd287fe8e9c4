"""When a run reports whose learner is on a host, what it reports, and what can be saved with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from rlws.agent import Agent
from rlws.numerics.counts import unwrapped
from rlws.trainers.learning import Learning
from rlws.trainers.trainer import Control, Progress, Snapshot, limits, next_multiple


@dataclass
class Counts:
    """What was counted of a run, as `HostEnvironments` count it."""

    info: int  # numbers that are kept of what an environment says in an episode
    steps: int = 0
    episodes: int = 0
    ended: list[tuple[float, ...]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def table(self, ended: list[tuple[float, ...]]) -> np.ndarray:
        """Returns what ended as an array, float64 [n, 2 + info]."""
        return np.array(ended, np.float64).reshape(-1, 2 + self.info)


class Reports:
    """The reports of a run that `learning` learns from.

    What was played is in `counts`: those, or the environments of a host, which count themselves.
    `save` returns arrays and facts of whoever plays, of what ended as it shall be saved.
    """

    def __init__(
        self, agent: Agent, counts: Any, learning: Learning, control: Control, save: Callable
    ):
        self._agent, self._counts, self._control = agent, counts, control
        self._learning, self._save = learning, save
        self._limits = limits(control.steps, control.episodes)
        begun = {"next_report": 0, "updates": 0} if control.resume is None else control.resume.facts
        self._next, self._updates = begun["next_report"], begun["updates"]

    def _spent(self) -> bool:
        steps, episodes = self._limits
        return self._counts.steps >= steps or self._counts.episodes >= episodes

    def due(self) -> bool:
        """Returns whether it is time for one."""
        return self._spent() or self._counts.steps >= self._next or self._control.stop()

    def next(self) -> None:
        """Waits for the next one."""
        self._next = next_multiple(self._counts.steps, self._control.report_period)

    def make(self) -> Progress:
        """Returns the progress since the last one, if `stop` is not all there is to report."""
        counts, learning, spent = self._counts, self._learning, self._spent()
        stopped = not (spent or learning.halted or counts.steps >= self._next)
        before, ended, warnings = learning.state(), [*counts.ended], (*counts.warnings,)
        self._updates = unwrapped(int(before.learner.updates), self._updates)
        state, metrics = (before, {}) if stopped else learning.read()
        if not stopped:
            counts.ended.clear()
            counts.warnings.clear()
        return Progress.of(
            counts.steps,
            counts.episodes,
            self._updates,
            counts.table(ended),
            metrics=metrics,
            agent=self._agent,
            params=state.learner.params,
            spent=spent,
            snapshot=partial(self._snapshot, before, ended),
            halted=learning.halted,
            stopped=stopped,
            warnings=warnings,
        )

    def _snapshot(self, before: Any, ended: list) -> Snapshot:
        arrays, facts = self._save(ended)
        arrays |= self._learning.learned()
        arrays["state"] = arrays["state"]._replace(totals=before.totals)
        facts |= {"next_report": self._next, "updates": self._updates}
        return Snapshot(arrays, facts)
