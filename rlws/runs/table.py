"""What the runs of a sweep come to, side by side."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlws.runs import folders
from rlws.runs.differences import shown
from rlws.runs.experiment import Experiment
from rlws.runs.recorder import Recorder, returns
from rlws.runs.sweep import Variant
from rlws.settings import describe
from rlws.tracking.progress import duration
from rlws.trainers import Member, Progress

TRAINING, EVALUATION = "training_return_last_100", "evaluation_return_mean"
COLUMNS = "steps", "updates", "seconds", TRAINING, EVALUATION


def row(
    recorders: Sequence[Recorder], reports: dict[int, Progress], seconds: float
) -> dict[str, float]:
    """Returns the row of all members at once: sums of counters, mean and range of returns."""
    totals = [recorder.summary for recorder in recorders]
    found = {k: sum(t[k] for t in totals) for k in ("steps", "episodes", "updates")}
    found |= {"seconds": seconds, "steps_per_second": found["steps"] / max(seconds, 1e-9)}
    means = [np.mean(report.returns) for report in reports.values() if len(report.returns)]
    return found | returns(means)


def _is_told(name: str) -> bool:
    """Returns whether a column is of what the environment said in evaluations."""
    return name.startswith("evaluation_") and not name.startswith("evaluation_return_")


class Entry(NamedTuple):
    """What one run of a sweep came to."""

    folder: str  # below that of the sweep
    settings: dict[str, Any]  # what sets it apart, its seed among them
    summary: dict[str, Any]


def summarise(
    experiment: Experiment, runs: list[Member], recorders: Sequence[Recorder], directory: Path
) -> dict[str, Any]:
    """Writes members.csv; returns what the whole came to, for each combination of settings."""
    entries = [
        Entry(
            recorder.run.directory.name,
            {"seed": seed, **{k: shown(describe(v)) for k, v in settings.items()}},
            recorder.summary,
        )
        for (seed, settings), recorder in zip(runs, recorders, strict=True)
    ]
    seconds = max(recorder.summary["seconds"] for recorder in recorders)
    summary = {"experiment": experiment.name, "members": len(runs), **row(recorders, {}, seconds)}
    summary["peak_memory_mb"] = recorders[0].summary.get("peak_memory_mb", 0.0)
    return summary | tabled(entries, directory)


def entries_of(variant: Variant, directory: Path) -> list[Entry]:
    """Returns the entries of a variant that has been run in a folder of the sweep's `directory`."""
    label, settings = variant.label, variant.settings
    folder = directory / label
    if not (folder / "members.csv").exists():
        own = {"seed": variant.experiment.seed, **settings}
        return [Entry(label, own, folders.summary(folder))]
    with open(folder / "members.csv", newline="", encoding="utf-8") as file:
        rows = {one.pop("member"): one for one in csv.DictReader(file)}
    apart = lambda one: (
        settings | {k: v for k, v in one.items() if k not in COLUMNS and not _is_told(k)}
    )
    return [
        Entry(f"{label}/{name}", apart(one), folders.summary(folder / name))
        for name, one in rows.items()
    ]


def tabled(entries: Sequence[Entry], directory: Path) -> dict[str, str]:
    """Writes members.csv; returns the mean evaluation of each combination of settings, in words.

    The interval is that of Student's t over seeds, 95 %; seconds are those of a run.
    """
    from scipy import stats  # takes a third of a second

    names = list(dict.fromkeys(name for entry in entries for name in entry.settings))
    said = dict.fromkeys(name for entry in entries for name in entry.summary if _is_told(name))
    columns = [*COLUMNS, *said]
    rows = [
        [entry.folder, *(entry.settings.get(k, "") for k in names)]
        + [entry.summary.get(k, "") for k in columns]
        for entry in entries
    ]
    with open(directory / "members.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["member", *names, *columns], *rows])
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        told = (f"{k}={entry.settings.get(k, '')}" for k in names if k != "seed")
        groups.setdefault(" ".join(told) or "all", []).append(entry.summary)
    found = {}
    for name, summaries in groups.items():
        scores = [summary[EVALUATION] for summary in summaries if EVALUATION in summary]
        seconds = np.mean([summary.get("seconds", 0.0) for summary in summaries])
        text = f"mean {np.mean(scores):.4g}" if scores else "no evaluation"
        if len(scores) > 1:
            half = stats.t.ppf(0.975, len(scores) - 1) * stats.sem(scores)
            text += f" [{np.mean(scores) - half:.4g}, {np.mean(scores) + half:.4g}]"
        text += f", n {len(scores or summaries)}, {duration(seconds)}"
        if failed := [summary["ended_by"] for summary in summaries if "ended_by" in summary]:
            text += f"; {len(failed)} of {len(summaries)} did not finish: {failed[0]}"
        if stopped := [summary["steps"] for summary in summaries if "stopped_by" in summary]:
            text += f", {len(stopped)} stopped at {np.mean(stopped):,.0f} steps in the mean"
        found[name] = text
    return found
