"""Results: what the runs in some folders came to, in groups that differ in nothing but seeds."""

import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlws.runs import folders
from rlws.runs.differences import labels, settings
from rlws.settings import SettingError, choose, shown
from rlws.tracking.columns import series
from rlws.tracking.files import read_metrics

SCORE = "evaluation_return_mean"


class Result(NamedTuple):
    """The folder of a run, read."""

    directory: pathlib.Path
    config: dict[str, Any]  # as in config.json
    summary: dict[str, Any]  # as in summary.json; empty while the run has not ended

    @property
    def name(self) -> str:
        """The experiment's."""
        return str(self.config.get("name", "?"))

    @property
    def environment(self) -> str:
        return shown(self.config.get("environment", "?"))

    @property
    def seed(self) -> int:
        seed = self.config.get("seed", 0)
        if type(seed) is not int:
            raise SettingError(
                f"{self.directory / 'config.json'}: seed must be a whole number, got {seed!r}; "
                "leave this run out"
            )
        return seed

    @property
    def state(self) -> str:
        """In words: finished, ended by something, or unfinished."""
        if not self.summary:
            return "unfinished"
        reason = self.summary.get("ended_by")
        return f"ended by {reason}" if reason else "finished"

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides its outcome but the seed, by dotted name."""
        return settings(self.config)

    def number(self, name: str) -> float:
        """Returns an entry of the summary; NaN where there is none."""
        value = self.summary.get(whole_name(name, self.summary))
        return float(value) if isinstance(value, int | float) else math.nan

    def columns(self) -> dict[str, list[float]]:
        """Returns the columns of metrics.csv.

        Raises:
          SettingError: there is none, or it cannot be read.
        """
        path = self.directory / "metrics.csv"
        try:
            return read_metrics(path)
        except FileNotFoundError:
            raise SettingError(f"{self.directory} has no metrics.csv; leave it out") from None
        except (OSError, ValueError, IndexError) as error:
            raise SettingError(f"{path} cannot be read: {error}; leave it out") from None


class Group(NamedTuple):
    """Runs that differ in nothing but their seeds."""

    label: str  # what sets it apart from the other groups
    results: tuple[Result, ...]  # in the order of their seeds

    def numbers(self, name: str) -> np.ndarray:
        """Returns an entry of each summary, [n], where there is one."""
        found = np.array([result.number(name) for result in self.results])
        return found[np.isfinite(found)]


def read(directory: str | pathlib.Path) -> Result:
    """Returns the run in a folder.

    Raises:
      SettingError: there is none, or its files cannot be read.
    """
    path = pathlib.Path(directory)
    return Result(path, folders.configuration(path), folders.summary(path))


def gather(directories: Iterable[str | pathlib.Path]) -> list[Result]:
    """Returns the runs in folders: of a run, of a sweep, or of folders of such.

    A run that is found twice counts once.

    Raises:
      SettingError: there is no run in one of them.
    """
    found: dict[pathlib.Path, pathlib.Path] = {}
    for directory in directories:
        path = pathlib.Path(directory)
        below = _folders(path)
        if not below:
            rule = "with a run in it" if path.is_dir() else "that is there"
            raise SettingError(
                f"DIR must be a folder {rule}, got {str(path)!r}; `rlws list runs` shows them"
            )
        found |= {folder.resolve(): folder for folder in below}
    return [read(folder) for folder in found.values()]


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the run folders at or below a path. A sweep is its members, also unfinished."""
    if not path.is_dir():
        return []
    if (path / "members.csv").exists():
        return folders.members(path)
    below = sorted(child for child in path.iterdir() if child.is_dir())
    if (path / "config.json").exists():
        return [child for child in below if (child / "config.json").exists()] or [path]
    return [folder for child in below for folder in _folders(child)]


def grouped(results: Sequence[Result]) -> tuple[list[Group], list[str]]:
    """Returns the groups of runs, by label, and a note on each run left out as a repetition.

    A run is a function of its settings and seed, so the same again says nothing new.
    """
    kept: dict[str, dict[int, Result]] = {}
    notes = []
    for result in results:
        seeds = kept.setdefault(repr(sorted(result.settings.items())), {})
        if result.seed in seeds:
            out, best = sorted([result, seeds[result.seed]], key=_completeness)
            seeds[result.seed] = best
            notes.append(f"{out.directory} left out: settings and seed of {best.directory}")
        else:
            seeds[result.seed] = result
    members = [tuple(seeds[seed] for seed in sorted(seeds)) for seeds in kept.values()]
    told = labels([group[0].config for group in members])
    names = [text or group[0].name for text, group in zip(told, members, strict=True)]
    return [Group(*pair) for pair in zip(names, members, strict=True)], notes


def _completeness(result: Result) -> int:
    return ("unfinished", "ended", "finished").index(result.state.partition(" ")[0])


def whole_name(metric: str, known: Iterable[str]) -> str:
    """Returns what a metric is called in full: success is episode_success, evaluation_success."""
    options = metric, f"episode_{metric}", f"evaluation_{metric}"
    return next((name for name in options if name in known), metric)


def column(result: Result, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns steps, values and weights, [N], of a metric's rows that have a value.

    Weights are the episodes a row stands for, where the metric is about episodes.

    Raises:
      SettingError: no run has a metric of this name, or this one has no value of it.
    """
    columns = result.columns()
    metric = whole_name(metric, columns)
    choose(f"--metric: {result.directory}", metric, [k for k in columns if k != "steps"])
    steps, values, weights = series(columns, metric)
    if not len(values):
        raise SettingError(f"{result.directory} has no value of {metric}; leave it out")
    return steps, values, weights
