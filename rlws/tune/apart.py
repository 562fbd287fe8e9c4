"""Trials that are runs by themselves, in processes side by side."""

import contextlib
import itertools
import multiprocessing
import pathlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rlws.runs import folders, launch
from rlws.runs.experiment import Experiment
from rlws.runs.health import NonFiniteError
from rlws.tune.methods import Job, Values
from rlws.tune.trials import Scored, Trials


class Apart:
    """Trains each run as `rlws.run` does; what of it is done already is in its folder."""

    def __init__(self, trials: Trials, stack: contextlib.ExitStack):
        """Starts as many processes as the experiment says, until the stack is closed."""
        self._trials, self.places = trials, trials.experiment.processes
        self._map: Any = map
        if self.places > 1:
            spawned = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self.places, mp_context=spawned)
            self._map = stack.enter_context(pool).map

    def group(self, settings: Values) -> Any:
        """Returns the same for all."""

    def train(self, jobs: list[Job], before: dict[int, int]) -> Iterator[Scored]:
        """Yields each job with its score, in their order."""
        experiments = [run for job in jobs for run in self._trials.of(job)]
        summaries = iter(self._map(_trained, experiments))
        for job in jobs:
            own = [*itertools.islice(summaries, len(self._trials.seeds))]
            yield [(job, self._trials.score(own))]


def _trained(experiment: Experiment) -> dict[str, Any]:
    """Returns the summary of a run, whose output goes into a file beside its folder."""
    directory = pathlib.Path(str(experiment.directory))
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(f"{directory}.log", "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.suppress(NonFiniteError),  # it has no score
    ):
        launch.run(experiment)
    return folders.summary(directory)
