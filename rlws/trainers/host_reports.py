"""When a run on a host reports, what it reports, and what can be saved with it."""

from functools import partial
from typing import Any

from rlws.agent import Agent
from rlws.trainers.host_environments import HostEnvironments
from rlws.trainers.trainer import Control, Progress, Snapshot, limits, next_multiple


class Reports:
    """The reports of a run, of which `rollout` plays and `learning` learns."""

    def __init__(
        self, agent: Agent, envs: HostEnvironments, rollout: Any, learning: Any, control: Control
    ):
        self._agent, self._envs, self._control = agent, envs, control
        self._rollout, self._learning = rollout, learning
        self._limits = limits(control.steps, control.episodes)
        self._next = 0 if control.resume is None else control.resume.facts["next_report"]

    def _spent(self) -> bool:
        steps, episodes = self._limits
        return self._envs.steps >= steps or self._envs.episodes >= episodes

    def due(self) -> bool:
        """Returns whether it is time for one."""
        return self._spent() or self._envs.steps >= self._next or self._control.stop()

    def next(self) -> None:
        """Waits for the next one."""
        self._next = next_multiple(self._envs.steps, self._control.report_period)

    def make(self) -> Progress:
        """Returns the progress since the last one, if `stop` is not all there is to report."""
        envs, learning, spent = self._envs, self._learning, self._spent()
        stopped = not (spent or learning.halted or envs.steps >= self._next)
        before, ended, warnings = learning.state(), [*envs.ended], (*envs.warnings,)
        state, metrics = (before, {}) if stopped else learning.read()
        if not stopped:
            envs.ended.clear()
            envs.warnings.clear()
        returns, lengths, *info = envs.table(ended).T
        return Progress(
            envs.steps,
            envs.episodes,
            int(state.learner.updates),
            returns,
            lengths,
            metrics,
            self._agent,
            state.learner.params,
            spent,
            partial(self._snapshot, before, ended),
            learning.halted,
            stopped,
            warnings,
            info,
        )

    def _snapshot(self, before: Any, ended: list) -> Snapshot:
        arrays, facts = self._rollout.save(ended)
        arrays |= self._learning.learned()
        arrays["state"] = arrays["state"]._replace(totals=before.totals)
        facts |= {"next_report": self._next, "updates": int(before.learner.updates)}
        return Snapshot(arrays, facts)
