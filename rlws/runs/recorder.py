"""From a trainer's reports to rows of metrics, evaluations, videos and a summary."""

import contextlib
import resource
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlws.environments.info import parsed
from rlws.environments.repeats import aside
from rlws.runs.experiment import Experiment
from rlws.runs.goals import Stopping, unsaid
from rlws.runs.health import Health, halted_text
from rlws.settings import describe
from rlws.tracking import Run, Tracker, write_video
from rlws.tracking.files import COUNTERS
from rlws.tracking.stderr import line_of
from rlws.trainers import Progress, evaluation

LAST_EPISODES = 100  # of training, in the summary


def returns(found: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Returns the columns that episodes of these returns fill."""
    if not len(found):
        return {}
    ends = {"": np.mean(found), "_min": np.min(found), "_max": np.max(found)}
    return {f"episode_return{end}": float(x) for end, x in ends.items()}


class Recorder:
    """Follows one run. It reads parameters and nothing else, so it cannot change the run."""

    def __init__(
        self,
        experiment: Experiment,
        run: Run,
        tracker: Tracker,
        evaluators: dict[str, Any] | None = None,
    ):
        """Follows the run of an experiment; runs of equal agents may share their `evaluators`."""
        self.experiment, self.run, self.tracker = experiment, run, tracker
        self.summary: dict[str, Any] = {"experiment": experiment.name, "seed": experiment.seed}
        self.summary |= dict.fromkeys(COUNTERS, 0)
        self._returns: deque[float] = deque(maxlen=LAST_EPISODES)
        self._steps: int | None = None  # at the last report
        self._seconds = self._fraction = 0.0
        self._evaluators = {} if evaluators is None else evaluators
        self._health = Health()
        self._held: dict[str, float] | None = None  # a row that waits for its evaluation
        self._result: Callable[[], dict[str, float]] = dict
        self._stopping = Stopping()
        self.evaluated: dict[str, float] = {}  # the evaluation of the last report, if it had one
        # Where the state that is evaluated may be wanted, its result is waited for.
        waits = experiment.checkpoint.best or experiment.stop_at or experiment.patience
        self._waits = bool(waits) or not experiment.trainer.evaluates_apart

    def save(self) -> dict[str, Any]:
        """Returns all that taking the next report depends on, JSON-able."""
        self._log_held()
        return {
            "summary": dict(self.summary),
            "returns": list(self._returns),
            "steps": self._steps,
            "seconds": self._seconds,
            "fraction": self._fraction,
            "health": self._health.save(),
            "stopping": self._stopping.save(),
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Goes on from what `save` returned."""
        self.summary |= facts["summary"]
        self._returns.extend(facts["returns"])
        self._steps, self._seconds = facts["steps"], facts["seconds"]
        self._fraction = facts["fraction"]
        self._health.restore(facts["health"])
        self._stopping.restore(facts.get("stopping", {}))

    def end(self, error: BaseException) -> None:
        """Notes what ended the run before its budget was spent."""
        with contextlib.suppress(Exception):  # an evaluation that may not come any more
            self._log_held()
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        self.summary["ended_by"] = " ".join(reason.split())

    def take(self, report: Progress, seconds: float) -> None:
        """Logs a report that was made `seconds` of training after the start.

        Where evaluation goes on beside training, one with an evaluation is logged with the next.
        """
        self._log_held()
        self.evaluated = {}
        row = self._row(report, seconds)
        if not report.halted:
            row |= self._health.measure(report)
        said = [f"warning at {report.steps:,} steps: {text}" for text in report.warnings]
        for warning in (*said, *self._health.warnings(row)):
            self._warn(warning)
        period, before = self.experiment.evaluation.period, self._steps
        spent = report.spent
        now = spent or (period and (before is None or report.steps // period > before // period))
        if now and self.experiment.evaluation.episodes:
            with aside():
                self._result = self._evaluation(report)
        self._held = row
        if spent or self._waits:
            self._log_held()
        for name in unsaid(self.experiment, self.evaluated) if self.evaluated else ():
            text = f"evaluations that no episode said {name} in are not looked at"
            if text not in self.summary.get("warnings", ()):
                self._warn(text)
        if (
            self.evaluated
            and not spent
            and (why := self._stopping.look(self.experiment, self.evaluated))
        ):
            self.summary |= {**self.evaluated, "stopped_by": why}
            self.tracker.note(f"stopped at {report.steps:,} steps: {why}")
        fraction = self.run.fraction(row)
        if self.experiment.video and (before is None or self._fraction < 0.5 <= fraction or spent):
            with aside():
                self._film(report)
        if spent and report.steps and not report.updates:
            self._warn(f"the learner never ran: {report.steps:,} steps were not enough for a batch")
        if report.halted:
            self.summary["ended_by"] = halted_text(report)
            self.tracker.note(f"{self.run.directory.name}: {halted_text(report)}")
        self._steps, self._seconds, self._fraction = report.steps, seconds, fraction

    def _warn(self, text: str) -> None:
        self.summary.setdefault("warnings", []).append(text)
        self.tracker.note(text)

    def _log_held(self) -> None:
        """Logs the row that was not logged yet, if there is one."""
        row, self._held = self._held, None
        if row is None:
            return
        result, self._result = self._result, dict
        self.evaluated = result()
        self.tracker.log(row | self.evaluated)

    def _evaluation(self, report: Progress) -> Callable[[], dict[str, float]]:
        """Begins an evaluation; returns what waits for the mean and deviation of its returns."""
        experiment, settings = self.experiment, self.experiment.evaluation
        name = repr(describe(experiment.agent))
        if name not in self._evaluators:
            made = experiment.agent, report.agent, experiment.source
            how = settings.episodes, settings.num_envs
            self._evaluators[name] = experiment.trainer.evaluator(*made, *how)
        waiting = self._evaluators[name](report.params, experiment.seed)

        def result():
            returns, lengths, *info = waiting()
            ended = returns[np.isfinite(returns)]
            said, found = f"evaluation at {report.steps:,} steps: ", dict[str, float]()
            if len(ended):
                mean, deviation = float(np.mean(ended)), float(np.std(ended))
                found = {"evaluation_return_mean": mean, "evaluation_return_std": deviation}
                told = self._info([x[np.isfinite(returns)] for x in info])
                found |= {f"evaluation_{name}": x for name, x in told.items()}
                said += f"return {mean:.1f} ± {deviation:.1f} over {len(ended)} episodes"
                said += "".join(f", {name} {x:.3g}" for name, x in told.items())
                self.tracker.note(said)
            if cut := len(returns) - len(ended):
                found["evaluation_unfinished"] = cut
                self._warn(
                    f"{said}{', and ' * (cut < len(returns))}{cut} "
                    f"{evaluation.unfinished(lengths[np.isnan(returns)])}"
                )
            if report.spent:
                self.summary |= found
            return found

        return result

    def _row(self, report: Progress, seconds: float) -> dict[str, float]:
        before, elapsed = self._steps, seconds - self._seconds
        rate = 0.0 if before is None else (report.steps - before) / elapsed
        counters = report.steps, report.episodes, report.updates, seconds, rate
        row: dict[str, float] = dict(zip(COUNTERS, counters, strict=True))
        row |= returns(report.returns)
        if len(report.lengths):
            row["episode_length"] = float(np.mean(report.lengths))
            row |= {f"episode_{name}": x for name, x in self._info(report.info).items()}
        self._returns.extend(report.returns)
        self.summary |= {name: row[name] for name in ("steps", "episodes", "updates", "seconds")}
        self.summary["steps_per_second"] = report.steps / seconds
        if self._returns:
            self.summary[f"training_return_last_{LAST_EPISODES}"] = float(np.mean(self._returns))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.summary["peak_memory_mb"] = peak / (2**20 if sys.platform == "darwin" else 2**10)
        return row | report.metrics

    def _info(self, columns: Sequence[np.ndarray]) -> dict[str, float]:
        """Returns the means over episodes of what is kept of their info, where one said it."""
        named = zip(parsed(self.experiment.info), columns, strict=False)  # none: no episode
        return {name: float(np.nanmean(x)) for name, x in named if not np.isnan(x).all()}

    def _film(self, report: Progress) -> None:
        name = f"videos/steps_{report.steps:09d}.mp4"
        path = self.run.directory / name
        experiment = self.experiment
        shown = report.agent, report.params, experiment.environment, experiment.seed
        frames, rate = evaluation.film(*shown, experiment.trainer.timeout)
        try:
            path.parent.mkdir(exist_ok=True)
            write_video(path, frames, rate)
            self.tracker.note(f"video of a greedy episode: {name}")
        except Exception as error:  # whatever a renderer raises: training does not need it
            self._warn(f"no video at {report.steps:,} steps: {line_of(error)}")
