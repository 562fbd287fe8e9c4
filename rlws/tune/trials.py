"""Trials, whoever trains them: their folders, seeds and scores."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from rlws.runs.experiment import Experiment
from rlws.settings import change
from rlws.tracking.columns import signed
from rlws.tune.methods import Job, Values

Scored = list[tuple[Job, float]]


class Trials(NamedTuple):
    """What all trials of a study have in common."""

    experiment: Experiment
    seeds: Sequence[int]  # of each trial
    directory: pathlib.Path  # in which each has a folder
    metric: str  # entry of summary.json; more is better, of name:min less
    apart: bool = False  # whether each trial has seeds of its own, so many further on
    names: Sequence[str] = ()  # of the trials, by default their numbers

    def of(self, job: Job) -> list[Experiment]:
        """Returns the runs of a trial as experiments."""
        changed = change(self.experiment, dict(job.settings))
        trainer = changed.trainer
        if hasattr(trainer, "num_seeds"):
            trainer = dataclasses.replace(trainer, num_seeds=1)
        own = dict(steps=job.steps, trainer=trainer, resume=True, quiet=True, processes=1)
        return [
            dataclasses.replace(changed, **own, seed=seed, directory=str(self.folder(job.trial, j)))
            for j, seed in enumerate(self.seeds_of(job.trial))
        ]

    def seeds_of(self, trial: int) -> list[int]:
        """Returns the seeds of a trial."""
        further = trial * len(self.seeds) * self.apart
        return [seed + further for seed in self.seeds]

    def folder(self, trial: int, j: int) -> pathlib.Path:
        """Returns the folder of a run, the j-th of its trial."""
        name = self.names[trial] if self.names else f"{trial:03d}"
        return self.directory / name / f"seed{self.seeds_of(trial)[j]}"

    def score(self, summaries: Sequence[dict[str, Any]]) -> float:
        """Returns what a trial came to: the mean over its seeds, minus infinity if one failed.

        Where less is better, the mean with its sign turned.
        """
        name, sign = signed(self.metric)
        found = [math.nan if "ended_by" in x else x.get(name, math.nan) for x in summaries]
        mean = sign * sum(found) / len(found)
        return mean if math.isfinite(mean) else -math.inf


class Trains(Protocol):
    """Trains trials."""

    places: int  # how many trials at once, of a group

    def group(self, settings: Values) -> Any:
        """Returns what trials have in common that are trained together."""

    def train(self, jobs: list[Job], before: dict[int, int]) -> Iterator[Scored]:
        """Yields jobs with their scores, as they come; `before`: the steps that trials are at."""
