"""What is said of evaluations: which is the best, and when they are good enough to end a run."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rlws.environments.info import parsed
from rlws.runs.experiment import Experiment
from rlws.settings import SettingError, choose, whole
from rlws.tracking.columns import signed

RETURN = "evaluation_return_mean"


class Goal(NamedTuple):
    """A column of evaluations, and whether more of it is better."""

    name: str
    sign: float  # 1, or -1 where less is

    @classmethod
    def of(cls, text: str) -> "Goal":
        """Returns what `name` or `name:min` means; return and success are short names."""
        name, sign = signed(text)
        if not name.startswith("evaluation_"):
            name = RETURN if name == "return" else f"evaluation_{name}"
        return cls(name, sign)

    def score(self, row: Mapping[str, float]) -> float:
        """Returns how good a row is, more is better; minus infinity where it has no value."""
        found = self.sign * row.get(self.name, math.nan)
        return -math.inf if math.isnan(found) else found


def stop_at(experiment: Experiment) -> tuple[Goal, float] | None:
    """Returns the goal of an experiment and the value at which it stops, None where there is none.

    Raises:
      SettingError: it is not name=number.
    """
    if not experiment.stop_at:
        return None
    text, _, value = experiment.stop_at.partition("=")
    goal = Goal.of(text)
    try:
        return goal, _number(value)
    except ValueError:
        raise SettingError(
            f"stop_at must be name=number, got {experiment.stop_at!r}; such as {RETURN}=475, or "
            "distance:min=0.1 of what shall be small"
        ) from None


def _number(text: str) -> float:
    with contextlib.suppress(ValueError):
        return whole(text)
    if not math.isfinite(found := float(text)):
        raise ValueError
    return found


def patient_for(experiment: Experiment) -> Goal:
    """Returns what has to get better for an experiment to go on: its goal, or what is kept."""
    found = stop_at(experiment)
    return found[0] if found else Goal.of(experiment.checkpoint.best or RETURN)


def check_goals(experiment: Experiment) -> None:
    """Raises a SettingError unless evaluations say what an experiment wants to know of them."""
    stops, best = stop_at(experiment), experiment.checkpoint.best
    if experiment.stop_times > 1 and not stops:
        raise SettingError(
            f"stop_times must be with a stop_at, got {experiment.stop_times} without; add "
            "--stop-at return=475, say, or leave it at 1"
        )
    if not (stops or experiment.patience or best):
        return
    names = [*parsed(experiment.info)]
    known = RETURN, *(f"evaluation_{name}" for name in names), "return", *names
    for setting, text in {"checkpoint.best": best, "stop_at": experiment.stop_at}.items():
        if text:
            Goal.of(text.partition("=")[0])
            choose(setting, re.split("[:=]", text)[0].strip(), known)
    if not (experiment.evaluation.period and experiment.evaluation.episodes):
        raise SettingError(
            "evaluation.period and evaluation.episodes must be at least 1, or no evaluation can be "
            "the best or end the run, got 0; try --evaluation.period 10k"
        )


def unsaid(experiment: Experiment, row: Mapping[str, float]) -> list[str]:
    """Returns which columns that an experiment wants to be good an evaluation lacks."""
    wants = experiment.stop_at or experiment.patience, experiment.checkpoint.best
    goals = [patient_for(experiment)] * bool(wants[0]) + [Goal.of(wants[1])] * bool(wants[1])
    return [goal.name for goal in dict.fromkeys(goals) if math.isnan(row.get(goal.name, math.nan))]


@dataclasses.dataclass
class Stopping:
    """Looks at the evaluations of a run, until they are good enough or no longer get better."""

    times: int = 0  # in a row that the goal was reached
    top: float = -math.inf  # the best score so far
    since: int = 0  # evaluations since then

    def save(self) -> dict[str, Any]:
        """Returns what later answers depend on, JSON-able."""
        return {**dataclasses.asdict(self), "top": None if math.isinf(self.top) else self.top}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Goes on from what `save` returned."""
        known = {name: x for name, x in facts.items() if x is not None}
        vars(self).update(known)

    def look(self, experiment: Experiment, row: Mapping[str, float]) -> str:
        """Returns why the run ends with this evaluation; "" where it goes on."""
        goal = patient_for(experiment)
        score, value = goal.score(row), row.get(goal.name, math.nan)
        if math.isnan(value):  # not said in any episode: neither good nor bad
            return ""
        self.since = 0 if score > self.top else self.since + 1
        self.top = max(self.top, score)
        if stops := stop_at(experiment):
            self.times = self.times + 1 if score >= goal.sign * stops[1] else 0
            if self.times >= experiment.stop_times:
                text = f", {self.times} times in a row" if self.times > 1 else ""
                return f"{goal.name} came to {value:.4g}{text}: {experiment.stop_at}"
        if experiment.patience and self.since >= experiment.patience:
            best = goal.sign * self.top
            count = f"{self.since} evaluation{'s' * (self.since > 1)}"
            return f"{goal.name} did not get better than {best:.4g} in {count}"
        return ""
