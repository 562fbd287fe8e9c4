"""Sweeps: several runs of one experiment, which differ in seeds and settings."""

import csv
import dataclasses
import itertools
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Experiment
from rlws.runs.recorder import Recorder
from rlws.runs.session import finished_by, follow
from rlws.settings import SettingError, change, describe
from rlws.tracking import Csv, Json, Plots, Run, Sink, Terminal, Tracker
from rlws.trainers import DeviceTrainer, Member


def members(experiment: Experiment) -> list[Member]:
    """Returns the runs of an experiment: all combinations of its sweeps, for each of its seeds.

    Raises:
      SettingError: a sweep is not of the form agent.setting=value,value,... or names no setting.
    """
    choices = [_parse(text, experiment.agent) for text in experiment.sweep]
    count = getattr(experiment.trainer, "num_seeds", 1)
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
    try:
        value = json.loads(text.strip().lower())
    except json.JSONDecodeError:
        return text
    return float(value) if isinstance(now, float) and not isinstance(value, bool) else value


def run_all(
    experiment: Experiment, runs: list[Member], checkpointer: Checkpointer, sinks: Sequence[Sink]
) -> dict[str, Any]:
    """Runs all members of an experiment; returns the summary of the whole.

    Each member leaves a run folder of its own below `directory`; `members.csv` lays them side by
    side, and the plots show their mean and range.
    """
    directory = checkpointer.directory
    # Recorded as what it is: a run by itself would give the same.
    alone = dataclasses.replace(experiment, sweep=())
    if isinstance(experiment.trainer, DeviceTrainer):
        trainer = dataclasses.replace(experiment.trainer, num_seeds=1)
        alone = dataclasses.replace(alone, trainer=trainer)
    unit = "episodes" if experiment.steps is None else "steps"
    budget = getattr(experiment, unit)
    whole = Run(
        experiment.name,
        directory,
        describe(experiment),
        budget * len(runs),
        unit,
        checkpointer.resumed_steps(None),
    )
    tracker = Tracker((Terminal(experiment.quiet), Csv(), Json(), Plots(), *sinks))
    recorders = []
    evaluators: dict[str, Any] = {}
    for i, (seed, settings) in enumerate(runs):
        own = dataclasses.replace(alone, agent=change(experiment.agent, settings), seed=seed)
        folder = directory / _label(i, seed, settings, len(runs))
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(
            experiment.name, folder, describe(own), budget, unit, checkpointer.resumed_steps(i)
        )
        member_tracker = Tracker((Csv(), Json(), *experiment.sinks()))
        recorders.append(Recorder(own, run, member_tracker, evaluators))
    log = partial(_log, recorders, tracker)
    summary = dict[str, Any]()

    def finish():
        for recorder in recorders:
            recorder.tracker.finish(recorder.summary)
        summary.update(_summary(experiment, runs, recorders, directory))
        tracker.finish(summary)

    with finished_by(recorders, finish):
        tracker.start(whole)
        for recorder in recorders:
            recorder.tracker.start(recorder.run)
        follow(experiment, runs, recorders, checkpointer, log)
    return summary


def _log(recorders, tracker, reports, seconds):
    totals = [recorder.summary for recorder in recorders]
    row = {k: sum(t[k] for t in totals) for k in ("steps", "episodes", "updates")}
    row |= {"seconds": seconds, "steps_per_second": row["steps"] / max(seconds, 1e-9)}
    means = [np.mean(report.returns) for report in reports.values() if len(report.returns)]
    if means:
        row |= {
            "episode_return": float(np.mean(means)),
            "episode_return_min": float(np.min(means)),
            "episode_return_max": float(np.max(means)),
        }
    tracker.log(row)


def _label(i: int, seed: int, settings: dict[str, Any], count: int) -> str:
    parts = [f"{i:0{len(str(count - 1))}d}", *(f"{k}={v}" for k, v in settings.items())]
    return "_".join([*parts, f"seed{seed}"]).replace("/", "-")


def _summary(experiment, runs, recorders, directory) -> dict[str, Any]:
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
    first = recorders[0].summary
    summary = {"experiment": experiment.name, "members": len(runs)}
    summary |= {k: sum(r.summary[k] for r in recorders) for k in ("steps", "episodes", "updates")}
    seconds = max(r.summary["seconds"] for r in recorders)
    summary |= {"seconds": seconds, "steps_per_second": summary["steps"] / max(seconds, 1e-9)}
    summary["peak_memory_mb"] = first.get("peak_memory_mb", 0.0)
    groups: dict[str, list[float]] = {}
    for (_, settings), recorder in zip(runs, recorders, strict=True):
        name = " ".join(f"{k}={v}" for k, v in settings.items()) or "all"
        if evaluation in recorder.summary:
            groups.setdefault(name, []).append(recorder.summary[evaluation])
    for name, scores in groups.items():
        middle = stats.trim_mean(scores, 0.25)  # the interquartile mean
        summary[f"evaluation_iqm {name}"] = f"{middle:.4g} of {len(scores)} runs"
    return summary
