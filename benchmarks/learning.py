"""How well agents learn, by a fixed protocol: `python -m benchmarks.learning --row 1`.

A row fixes agent, environment, budget and reference. Scores are those of the last parameters, never
the best: T, the mean return of the last 100 training episodes, and E, the mean return of greedy
ones. The statistic is the interquartile mean over seeds with a 95 % percentile bootstrap interval.
Seeds 0 to 9 are for tuning; rows are judged on seeds from 1000.
"""

import argparse
import csv
import pathlib
import time
from typing import Any, Literal

import numpy as np

from benchmarks.rows import ROWS, Row
from rlws import evaluation
from rlws.settings import change
from rlws.statistics import interquartile_mean, interval
from rlws.sweep import parse_value
from rlws.trainers import Member

JUDGED_FROM = 1000
REPORTS = 20  # points of a learning curve


def scores(row: Row, seeds: range) -> tuple[np.ndarray, list[list[tuple[int, float]]]]:
    """Returns T and E of each seed, [seeds, 2], and its learning curve: steps and mean return."""
    members, began = [Member(seed, {}) for seed in seeds], time.perf_counter()
    returns: list[list[float]] = [[] for _ in seeds]
    curves: list[list[tuple[int, float]]] = [[] for _ in seeds]
    found, evaluate = np.zeros((len(seeds), 2)), None
    trainer = row.trainer
    reports = trainer.train_all(
        row.agent,
        row.environment,
        members,
        steps=row.steps,
        report_period=max(1, row.steps // REPORTS),
    )
    for progress in reports:
        for i, report in progress.items():
            returns[i].extend(report.returns)
            if returns[i]:
                curves[i].append((report.steps, float(np.mean(returns[i][-100:]))))
            if not report.spent:
                continue
            if evaluate is None:
                evaluate = evaluation.evaluator(report.agent, row.environment, row.episodes)
            greedy = evaluate(report.params, seeds[i])[0].mean()
            found[i] = np.mean(returns[i][-100:]), greedy
            seconds = time.perf_counter() - began
            print(
                f"seed {seeds[i]}: T {found[i, 0]:7.1f}  E {greedy:7.1f}  after {seconds:.0f} s",
                flush=True,
            )
    return found, curves


Verdict = Literal["match", "fail", "undecided"]


def verdict(low: float, high: float, reference: float, tolerance: float = 0.0) -> Verdict:
    """Returns "match" if the interval lies above reference - tolerance, "fail" if below."""
    if low >= reference - tolerance:
        return "match"
    return "fail" if high < reference else "undecided"


def main() -> None:
    """Runs one row and prints how it compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=sorted(ROWS), required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=JUDGED_FROM)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/learning"))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="for tuning")
    args = parser.parse_args()
    row, seeds = ROWS[args.row], range(args.first_seed, args.first_seed + args.seeds)
    changes = dict(text.split("=") for text in args.set)
    changes = {k: parse_value(v, getattr(row.agent, k)) for k, v in changes.items()}
    row = row._replace(agent=change(row.agent, changes))
    found, curves = scores(row, seeds)
    _write(args.output, args.row, seeds, found, curves)
    print(f"row {args.row}: {row.agent} in {row.environment}, {row.steps:,} steps, {seeds}")
    for name, values in zip("TE", found.T, strict=True):
        low, high = interval(values)
        print(
            f"  {name}: IQM {interquartile_mean(values):.1f} [{low:.1f}, {high:.1f}]  mean "
            f"{values.mean():.1f}  worst {values.min():.1f}  best {values.max():.1f}"
        )
    for name, (score, reference) in row.references.items():
        low, high = interval(found[:, "TE".index(score)])
        # Such a reference is a table, maybe of one run, without an interval of its own.
        tolerance = 0.02 * abs(reference - row.random) if name == "match" else 0.0
        outcome = verdict(low, high, reference, tolerance)
        print(f"  {score} against {name} {reference} ({row.source}): {outcome}")


def _write(folder: pathlib.Path, name: str, seeds: range, found: Any, curves: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        f"row{name}.csv": [("seed", "T", "E"), *zip(seeds, *found.T, strict=True)],
        f"row{name}_curves.csv": [
            ("seed", "steps", "return_last_100"),
            *((s, *point) for s, curve in zip(seeds, curves, strict=True) for point in curve),
        ],
    }
    for file_name, lines in tables.items():
        with open(folder / file_name, "w", newline="") as file:
            csv.writer(file).writerows(lines)


if __name__ == "__main__":
    main()
