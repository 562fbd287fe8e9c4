"""Seeds added to both sides of a comparison until it is decided."""

import contextlib
import dataclasses
import io
import pathlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from rlws.analysis.comparison.sequential import Look, look_sizes, replay
from rlws.analysis.comparison.sides import Side
from rlws.analysis.results import Group, gather
from rlws.runs import folders
from rlws.settings import SettingError

if TYPE_CHECKING:
    from rlws.runs.experiment import Experiment

Sides = tuple[Side, Side]
LOOKS = 100  # at most


def check_plan(batch: int, maximum: int) -> None:
    """Raises a SettingError unless there is something to be seen at the last look."""
    if batch < 1:
        raise SettingError(f"--batch must be at least 1, got {batch}; try 5")
    if maximum < 4:
        raise SettingError(
            f"--max-seeds must be at least 4, fewer decide nothing, got {maximum}; try 40"
        )
    if not batch <= maximum <= LOOKS * batch:
        raise SettingError(
            f"--batch must be at most --max-seeds={maximum} and make at most {LOOKS} looks, "
            f"got {batch}; try {-(-maximum // 8)}"
        )


def until_decided(
    sides: Sides,
    score: Callable[[Side], np.ndarray],
    plan: tuple[int, int],
    margin: float,
    folder: pathlib.Path,
    say: Callable[[str], None] = print,
) -> tuple[Sides, list[Look]]:
    """Trains seeds for both sides until the sequential test decides or all seeds are there.

    Args:
      sides: A and B as they are.
      score: returns the scores of a side by seed, [n] or [tasks, n].
      plan: seeds between looks; seeds of each side at most.
      margin: the largest difference that does not matter.
      folder: where new runs go, below A and B.
      say: is told what happens.

    Returns:
      The sides with their new runs, and the looks, of which only the last can have decided.
    """
    batch, maximum = plan
    for size in look_sizes(batch, maximum):
        a, b = (with_seeds(side, size, folder / side.name, say) for side in sides)
        sides = a, b
        # They may have more seeds than this, and the same number only of those compared.
        seeds = min(a.seeds, b.seeds)
        ours, theirs = score(a)[..., :seeds], score(b)[..., :seeds]
        looks = replay(ours, theirs, batch, maximum, margin)
        last = looks[-1]
        if last.seeds >= size:
            p = f"p = {last.verdict.p:.2g} against {last.level:.2g}"
            say(f"{last.seeds} seeds each: {last.verdict.outcome}, {p}")
        if last.verdict.decided:
            break
    return sides, looks


def with_seeds(side: Side, seeds: int, folder: pathlib.Path, say: Callable[[str], None]) -> Side:
    """Returns a side with so many seeds in each environment at least; trains those that lack."""
    tasks = {}
    for environment, group in side.tasks.items():
        lacking = seeds - len(group.results)
        if lacking > 0:
            experiment = folders.experiment_of(group.results[0].directory)
            first = 1 + max(result.seed for result in group.results)
            last = first + lacking - 1
            which = f"seeds {first} to {last}" if lacking > 1 else f"seed {first}"
            say(f"{side.name}: training {which} in {environment}")
            place = re.sub(r"[^\w.-]+", "-", environment) if len(side.tasks) > 1 else ""
            new = gather(train(experiment, first, lacking, folder / place))
            group = Group(group.label, (*group.results, *new))
        tasks[environment] = group
    return side._replace(tasks=tasks)


def train(
    experiment: "Experiment", first: int, count: int, folder: pathlib.Path
) -> list[pathlib.Path]:
    """Runs an experiment with new seeds; returns the folders of the runs, by seed.

    A device trainer runs them in one program. A run that comes to NaN leaves a folder that says so.
    """
    from rlws.runs import launch
    from rlws.runs.health import NonFiniteError
    from rlws.trainers import DeviceTrainer

    last = first + count - 1
    place = folder / (f"seeds{first}-{last}" if count > 1 else f"seed{first}")
    new = dataclasses.replace(
        experiment, seed=first, directory=str(place), quiet=True, video=False, sweep=()
    )
    if isinstance(experiment.trainer, DeviceTrainer):
        trainer = dataclasses.replace(experiment.trainer, num_seeds=count)
        new = dataclasses.replace(new, trainer=trainer)
    elif count > 1:
        seeds = range(first, last + 1)
        return [path for seed in seeds for path in train(experiment, seed, 1, folder)]
    # Each run would print a table.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(NonFiniteError):
        launch.run(new)
    return folders.members(place)
