"""The rounds of a study: played, or read from its journal, and what they came to."""

import csv
import math
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

from rlws.runs.differences import shown
from rlws.settings import describe
from rlws.tracking.files import replacing
from rlws.tracking.progress import duration
from rlws.tune.journal import Journal
from rlws.tune.methods import Job, Plan, Values
from rlws.tune.trials import Trains

Say = Callable[[str], None]


class Winner(NamedTuple):
    """The trial with the best score of those that were trained longest."""

    trial: int
    score: float
    segments: list[tuple[int, Values]]  # up to which steps its state was trained with what


class Rounds:
    """What was played so far, by round and trial."""

    def __init__(self, journal: Journal, expected: float):
        """Takes what is known, and the environment steps that all trials together may need."""
        self._journal, self._expected = journal, expected
        self.played: list[dict[int, tuple[Job, float]]] = []

    def play(self, plan: Plan, trains: Trains, say: Say, after: Callable[[], None]) -> None:
        """Plays all rounds of a plan, but for what the journal knows; `after` each is called."""
        scores: list[float] | None = None
        before: dict[int, int] = {}
        began, spent, begun = time.monotonic(), 0, set[int]()
        while True:
            try:
                jobs = plan.send(scores)  # type: ignore[arg-type]  # None the first time
            except StopIteration:
                return
            new = [job for job in jobs if self._journal.score(job) is None]
            self.played.append({})
            for job in jobs:
                if job not in new:
                    self._take(job)
            for found in trains.train(new, before) if new else ():
                for job, score in found:
                    self._journal.add(job, score)
                    self._take(job)
                    spent += job.steps - before.get(job.trial, 0)
                    begun.add(job.trial)
                seconds = time.monotonic() - began
                say(
                    f"{self._line(found)}   {60 * len(begun) / seconds:.3g} trials/min   "
                    f"{self._left(seconds / spent)} left"
                )
                after()
            scores = [self.played[-1][job.trial][1] for job in jobs]
            before |= {job.trial: job.steps for job in jobs}

    def _take(self, job):
        score = self._journal.score(job)
        self.played[-1][job.trial] = job, -math.inf if score is None else score

    def _line(self, found):
        most = max(job.steps for job, _ in found)
        score = max(score for _, score in found)
        trials = f"{len(found)} trial{'s' * (len(found) > 1)}"
        top = self.best()
        now = f"{trials:>10} at {most:>11,} steps: {score:.4g}"
        if top is None:
            return now
        return f"{now}   best {top.score:.4g} (trial {top.trial})"

    def _left(self, seconds):
        """Returns how long it takes yet, at so many seconds a step."""
        jobs = [job for job, _ in self.last().values()]
        return duration(seconds * max(0.0, self._expected - sum(job.steps for job in jobs)))

    def last(self) -> dict[int, tuple[Job, float]]:
        """Returns the last job of each trial, with its score."""
        found: dict[int, tuple[Job, float]] = {}
        for turn in self.played:
            found |= turn
        return dict(sorted(found.items()))

    def best(self) -> Winner | None:
        """Returns the best so far; None where nothing has a score."""
        scored = [
            (job.steps, score, -job.trial)
            for job, score in self.last().values()
            if math.isfinite(score)
        ]
        if not scored:
            return None
        _, score, number = max(scored)
        return Winner(-number, score, self._segments(-number))

    def _segments(self, trial):
        found: list[tuple[int, Values]] = []
        for turn in reversed(self.played):
            if trial not in turn:
                continue
            job, _ = turn[trial]
            if not found or found[0][1] != job.settings:
                found.insert(0, (job.steps, job.settings))
            trial = trial if job.parent is None else job.parent
        return found

    def write(self, directory: pathlib.Path) -> None:
        """Writes trials.csv, a line for each; and where settings changed, a trial's history.csv."""
        last = self.last()
        _table(directory / "trials.csv", [*last.values()])
        for trial in last:
            own = [turn[trial] for turn in self.played if trial in turn]
            if any(job.settings != own[0][0].settings for job, _ in own):
                _table(directory / "trials" / f"{trial:03d}" / "history.csv", own)


def _table(path, rows):
    names = [*rows[0][0].settings]
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["trial", *names, "steps", "score", "parent"])
        for job, score in rows:
            values = [shown(describe(job.settings[name])) for name in names]
            parent = "" if job.parent is None else job.parent
            lines.writerow([job.trial, *values, job.steps, score, parent])
