"""Sweeps: several runs of one experiment, which differ in seeds and settings."""

import contextlib
import csv
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlws.runs.experiment import Experiment
from rlws.runs.recorder import Recorder, returns
from rlws.settings import Seed, SettingError, change, check, whole
from rlws.trainers import DeviceTrainer, Member, Progress


def members(experiment: Experiment) -> list[Member]:
    """Returns the runs of an experiment: all combinations of its sweeps, for each of its seeds.

    Raises:
      SettingError: a sweep is not of the form agent.setting=value,value,... or names no setting.
    """
    choices = [_parse(text, experiment.agent) for text in experiment.sweep]
    count = getattr(experiment.trainer, "num_seeds", 1)
    check("seed of the last", Seed, experiment.seed + count - 1)
    found = []
    for combination in itertools.product(*choices):
        settings = dict(combination)
        change(experiment.agent, settings)  # checks names and ranges
        found += [Member(experiment.seed + i, settings) for i in range(count)]
    return found


def _parse(text: str, agent: Any) -> list[tuple[str, Any]]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    prefix, _, field = name.partition(".")
    if prefix != "agent" or not field or not equals or not values:
        raise SettingError(
            f"sweep must be of the form agent.setting=value,value, got {text!r}; for example "
            "agent.learning-rate=1e-4,3e-4"
        )
    holder = agent
    for part in field.split(".")[:-1]:
        holder = getattr(holder, part, None)
    last = field.rpartition(".")[2]
    change(agent, {field: getattr(holder, last, None)})  # checks that there is such a setting
    return [(field, parse_value(text, getattr(holder, last))) for text in values.split(",")]


def parse_value(text: str, now: Any) -> Any:
    """Returns the value meant by `text` for a setting that is `now` another."""
    if isinstance(now, str):
        return text
    if now is None or type(now) is int:
        with contextlib.suppress(ValueError):
            return whole(text.strip())
    try:
        value = json.loads(text.strip().lower())
    except ValueError:
        return text
    return float(value) if isinstance(now, float) and not isinstance(value, bool) else value


def alone(experiment: Experiment, runs: list[Member]) -> Iterator[Experiment]:
    """Yields each member as what it is recorded as: a run by itself would give the same."""
    trainer = experiment.trainer
    if isinstance(trainer, DeviceTrainer):
        trainer = dataclasses.replace(trainer, num_seeds=1)
    for seed, settings in runs:
        agent = change(experiment.agent, settings)
        yield dataclasses.replace(experiment, sweep=(), trainer=trainer, agent=agent, seed=seed)


def row(
    recorders: Sequence[Recorder], reports: dict[int, Progress], seconds: float
) -> dict[str, float]:
    """Returns the row of all members at once: sums of counters, mean and range of returns."""
    totals = [recorder.summary for recorder in recorders]
    found = {k: sum(t[k] for t in totals) for k in ("steps", "episodes", "updates")}
    found |= {"seconds": seconds, "steps_per_second": found["steps"] / max(seconds, 1e-9)}
    means = [np.mean(report.returns) for report in reports.values() if len(report.returns)]
    return found | returns(means)


def label(i: int, runs: list[Member]) -> str:
    """Returns the name of the folder of a member."""
    seed, settings = runs[i]
    parts = [f"{i:0{len(str(len(runs) - 1))}d}", *(f"{k}={v}" for k, v in settings.items())]
    return "_".join([*parts, f"seed{seed}"]).replace("/", "-")


def summarise(
    experiment: Experiment, runs: list[Member], recorders: Sequence[Recorder], directory: Path
) -> dict[str, Any]:
    """Writes members.csv; returns what the whole came to, for each combination of settings."""
    from scipy import stats  # takes a third of a second

    training, evaluation = "training_return_last_100", "evaluation_return_mean"
    names = list(dict.fromkeys(name for _, settings in runs for name in settings))
    rows = []
    for (seed, settings), recorder in zip(runs, recorders, strict=True):
        found = [recorder.summary.get(k, "") for k in ("steps", "updates", training, evaluation)]
        rows.append([recorder.run.directory.name, seed, *(settings[k] for k in names), *found])
    with open(directory / "members.csv", "w", newline="", encoding="utf-8") as file:
        header = ["member", "seed", *names, "steps", "updates", training, evaluation]
        csv.writer(file).writerows([header, *rows])
    seconds = max(recorder.summary["seconds"] for recorder in recorders)
    summary = {"experiment": experiment.name, "members": len(runs), **row(recorders, {}, seconds)}
    summary["peak_memory_mb"] = recorders[0].summary.get("peak_memory_mb", 0.0)
    groups: dict[str, list[float]] = {}
    for (_, settings), recorder in zip(runs, recorders, strict=True):
        name = " ".join(f"{k}={v}" for k, v in settings.items()) or "all"
        if evaluation in recorder.summary:
            groups.setdefault(name, []).append(recorder.summary[evaluation])
    for name, scores in groups.items():
        middle = stats.trim_mean(scores, 0.25)  # the interquartile mean
        summary[f"evaluation_iqm {name}"] = f"{middle:.4g} of {len(scores)} runs"
    return summary
