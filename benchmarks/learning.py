"""How well agents learn, by a fixed protocol: `python -m benchmarks.learning --row 1`.

A row fixes agent, environment, budget and reference. Scores are those of the last parameters, never
the best: T, the mean return of the last 100 training episodes, and E, the mean return of greedy
ones. A seed that crashes, or whose score is not finite, scores what random actions do. The
statistic is the interquartile mean over seeds with a 95 % percentile bootstrap interval.
Seeds 0 to 9 are for tuning; rows are judged on seeds from 1000.

Only the scores of a peer's own code, run by us (`--peer`), can be beaten; a table's are matched.
"""

import argparse
import csv
import json
import math
import pathlib
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
from scipy import stats

from benchmarks.rows import ROWS, Row
from rlws.analysis import statistics
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.runs import folders
from rlws.runs.check import check_experiment
from rlws.runs.experiment import Experiment
from rlws.runs.health import halted_text
from rlws.runs.sweep import parse_value
from rlws.settings import SettingError, change, describe
from rlws.tracking.figures import BLUE, GREY, VERMILLION
from rlws.trainers import Member, evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED_FROM = 1000
REPORTS = 20  # points of a learning curve
LAST_EPISODES = 100  # of training, in T
NOMINAL = 10  # seeds, up to which an interval covers less than it says
MARGIN = 0.02  # of reference - random: what a table of one run leaves open

Verdict = Literal["match", "beat", "fail", "undecided", "void"]


class Result(NamedTuple):
    """What became of one seed."""

    seed: int
    T: float  # mean return of the last training episodes
    E: float  # mean return of greedy episodes
    curve: list[tuple[int, float]]  # steps, T so far: NaN until an episode ends; empty: crashed
    failure: str = ""  # why T and E, or one of them, are the row's random score


def run(row: Row, seeds: Sequence[int]) -> Iterator[Result]:
    """Trains and evaluates each seed; yields what became of it as soon as that is known.

    Seeds train together where the trainer can do that. If one crashes, those that did not end train
    again, each by itself: the outcome is the same, and only the culprit's is lost.
    """
    ended, failure = set(), ""
    try:
        for result in _train(row, seeds):
            ended.add(result.seed)
            yield _finite(result, row.random)
    except Exception as error:  # whatever it is, by the protocol the seed counts
        failure = " ".join(f"{type(error).__name__}: {error}".split())
    # Not in the handler, where the error would keep alive what was trained.
    if failure and len(seeds) == 1:
        yield Result(seeds[0], row.random, row.random, [], failure)
    elif failure:
        for seed in seeds:
            if seed not in ended:
                yield from run(row, [seed])


def _train(row: Row, seeds: Sequence[int]) -> Iterator[Result]:
    recent: list[deque[float]] = [deque(maxlen=LAST_EPISODES) for _ in seeds]
    curves: list[list[tuple[int, float]]] = [[] for _ in seeds]
    ended, evaluate = set[int](), None
    reports = row.trainer.train_all(
        row.agent,
        row.environment,
        [Member(seed, {}) for seed in seeds],
        steps=row.steps,
        report_period=max(1, row.steps // REPORTS),
    )
    for progress in reports:
        for i, report in progress.items():
            recent[i].extend(report.returns)
            training = float(np.mean(recent[i])) if recent[i] else math.nan
            curves[i].append((report.steps, training))
            if i in ended or not (report.spent or report.halted):
                continue
            ended.add(i)
            if report.halted:
                yield Result(seeds[i], row.random, row.random, [], halted_text(report))
                continue
            if evaluate is None:
                evaluate = evaluation.evaluator(report.agent, row.environment, row.episodes)
            greedy = float(evaluate(report.params, seeds[i])[0].mean())
            yield Result(seeds[i], training, greedy, curves[i])


def _finite(result: Result, random: float) -> Result:
    training, greedy = (x if math.isfinite(x) else random for x in (result.T, result.E))
    lost = [name for name in "TE" if not math.isfinite(getattr(result, name))]
    failure = f"{' and '.join(lost)} not finite" if lost else result.failure
    return result._replace(T=training, E=greedy, failure=failure)


def aligned(results: list[Result], row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps [P] and T so far [seeds, P], from where each seed has ended an episode.

    A seed that crashed or ended none has the row's random score throughout.
    """
    grid = max(1, row.steps // REPORTS) * np.arange(1, REPORTS)
    grid = np.append(grid[grid < row.steps], row.steps)
    curves = np.full((len(results), len(grid)), row.random)
    for i, result in enumerate(results):
        if result.curve and math.isfinite(result.curve[-1][1]):
            steps, values = np.array(result.curve).T
            # A report is made at the first row of steps at or beyond its time.
            curves[i] = values[np.searchsorted(steps, grid)]
    known = np.isfinite(curves).all(axis=0)
    return grid[known], curves[:, known]


def verdict(low: float, high: float, reference: float, tolerance: float = 0.0) -> Verdict:
    """Returns "match" if the interval lies above reference - tolerance, "fail" if below."""
    if low >= reference - tolerance:
        return "match"
    return "fail" if high < reference else "undecided"


def against_peer(ours: np.ndarray, theirs: np.ndarray, row: Row) -> dict[str, Any]:
    """Returns the verdict on scores [n] against a peer's [m], with what it rests on.

    "beat" if both the difference lies above 0 and the probability of improvement above 1/2;
    otherwise that of the difference against 0. "void" if the peer does not match the reference, as
    then we do not run it as its authors did. One row by itself: claims about several need Holm's
    correction.
    """
    margin = _tolerance(row)
    difference = statistics.difference_interval(ours, theirs)
    improvement = statistics.improvement_interval(ours, theirs)
    outcome = verdict(*difference, 0.0, margin)
    if difference[0] > 0 and improvement[0] > 0.5:
        outcome = "beat"
    if verdict(*interval(theirs), row.references["match"][1], margin) != "match":
        outcome = "void"
    return {
        "verdict": outcome,
        "seeds": len(theirs),
        "iqm": float(interquartile_mean(theirs)),
        "difference": float(interquartile_mean(ours) - interquartile_mean(theirs)),
        "difference_interval": difference,
        "probability_of_improvement": statistics.probability_of_improvement(ours, theirs),
        "probability_of_improvement_interval": improvement,
    }


def _tolerance(row: Row) -> float:
    # Such a reference is a table, maybe of one run, without an interval of its own.
    return MARGIN * abs(row.references["match"][1] - row.random)


def summarise(row: Row, results: list[Result], peer: np.ndarray | None = None) -> dict[str, Any]:
    """Returns scores and verdicts as JSON-able data.

    Args:
      row: what was run.
      results: of each seed.
      peer: scores [m] of a peer's own code, of the kind that "match" refers to.
    """
    scores = {name: np.array([getattr(result, name) for result in results]) for name in "TE"}
    references = {
        name: {"score": score, "value": value}
        | _against(scores[score], value, _tolerance(row) if name == "match" else 0.0)
        for name, (score, value) in row.references.items()
    }
    score, reference = row.references["match"]
    steps, curves = aligned(results, row)
    above = steps[interquartile_mean(curves, axis=0) >= reference]
    return {
        "scores": {name: _spread(values, results) for name, values in scores.items()},
        "nominal": len(results) <= NOMINAL,
        "references": references,
        "steps_to_match": int(above[0]) if score == "T" and len(above) else None,
        "peer": None if peer is None else against_peer(scores[score], peer, row),
        "failures": {str(result.seed): result.failure for result in results if result.failure},
    }


def _against(values: np.ndarray, reference: float, tolerance: float) -> dict[str, Any]:
    low, high = interval(values)
    reached = int((values >= reference).sum())
    share = stats.binomtest(reached, len(values))
    return {
        "tolerance": tolerance,
        "verdict": verdict(low, high, reference, tolerance),
        "fraction_at_or_above": reached / len(values),
        "fraction_interval": [*share.proportion_ci(method="wilson")],
    }


def _spread(values: np.ndarray, results: list[Result]) -> dict[str, Any]:
    return {
        "iqm": float(interquartile_mean(values)),
        "interval": interval(values),
        "mean": float(values.mean()),
        "worst": float(values.min()),
        "worst_seed": results[int(values.argmin())].seed,
        "best": float(values.max()),
    }


def lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yields what a summary says, for people."""
    nominal = " nominal" if summary["nominal"] else ""
    span = lambda pair, form=".1f": "[{:{f}}, {:{f}}]".format(*pair, f=form)
    iqm = {
        k: f"{s['iqm']:.1f} {span(s['interval'])}{nominal}" for k, s in summary["scores"].items()
    }
    for name, found in summary["scores"].items():
        yield (
            f"{name}: IQM {iqm[name]}  mean {found['mean']:.1f}  "
            f"worst {found['worst']:.1f} (seed {found['worst_seed']})  best {found['best']:.1f}"
        )
    for name, found in summary["references"].items():
        yield (
            f"{name}: {found['score']} {iqm[found['score']]} against {found['value']:g}: "
            f"{found['verdict'].upper()}; {found['fraction_at_or_above']:.0%} "
            f"{span(found['fraction_interval'], '.0%')} of seeds at or above"
        )
    if summary["steps_to_match"]:
        yield f"IQM of T at the match threshold after {summary['steps_to_match']:,} steps"
    if peer := summary["peer"]:
        yield (
            f"peer: {peer['iqm']:.1f}, we differ by {peer['difference']:.1f} "
            f"{span(peer['difference_interval'])}{nominal}: {peer['verdict'].upper()}; "
            f"probability of improvement {peer['probability_of_improvement']:.2f} "
            f"{span(peer['probability_of_improvement_interval'], '.2f')}{nominal}"
        )
    for seed, reason in summary["failures"].items():
        yield f"seed {seed} counts as random: {reason}"


def title(name: str, row: Row, count: int) -> str:
    """Returns the heading of a row's figure, such as "Row 3: PPO in jax:CartPole-v1, 20 seeds"."""
    agent = type(row.agent).__module__.rpartition(".")[2].upper()
    return f"Row {name}: {agent} in {row.environment}, {count} seed{'s' * (count > 1)}"


def figure(name: str, row: Row, results: list[Result]) -> "Figure":
    """Draws T over environment steps: each seed, their interquartile mean and its interval."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    drawn = Figure((6.4, 4.4), dpi=150, layout="constrained")
    axes = drawn.add_subplot()
    steps, curves = aligned(results, row)
    band = np.array([interval(point) for point in curves.T]).reshape(-1, 2)
    nominal = " (nominal)" if len(results) <= NOMINAL else ""
    label = f"95 % bootstrap interval{nominal}"
    axes.plot(steps, curves.T, color=GREY, alpha=0.4, lw=0.7)[0].set_label("each seed")
    axes.fill_between(steps, *band.T, color=BLUE, alpha=0.25, lw=0, label=label)
    middle = interquartile_mean(curves, axis=0)
    axes.plot(
        steps, middle, "o-", color=BLUE, lw=2, ms=3, clip_on=False, label="interquartile mean"
    )
    for label, (score, value) in row.references.items():
        if score == "T":  # E is another quantity than what is drawn
            style = "--" if label == "match" else ":"
            text = f"{label} {value:g}"
            axes.axhline(value, color=VERMILLION, ls=style, lw=1.3, zorder=1.5, label=text)
    axes.set_xlim(0, row.steps)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps")
    axes.set_ylabel(f"T: mean return of the last {LAST_EPISODES}\ntraining episodes (reward)")
    axes.set_title(title(name, row, len(results)), loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.2, lw=0.6)
    drawn.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return drawn


def write(folder: pathlib.Path, name: str, row: Row, results: list[Result], summary: dict) -> None:
    """Writes row<name>.csv, row<name>_curves.csv, row<name>.json and row<name>.png."""
    points = ((r.seed, *point) for r in results for point in r.curve if math.isfinite(point[1]))
    scores = ((r.seed, r.T, r.E, r.failure) for r in results)
    _write_table(folder / f"row{name}.csv", ("seed", "T", "E", "failure"), scores)
    _write_table(folder / f"row{name}_curves.csv", ("seed", "steps", "return_last_100"), points)
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / f"row{name}.json").write_text(text + "\n", encoding="utf-8")
    figure(name, row, results).savefig(folder / f"row{name}.png")


def _write_table(path: pathlib.Path, header: tuple, table: Iterator[tuple]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *table])


def _circumstances(row: Row, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns what it takes to run this again."""
    return {
        "command": shlex.join(["python", "-m", "benchmarks.learning", *arguments]),
        "agent": describe(row.agent),
        "environment": row.environment,
        "trainer": describe(row.trainer),
        "steps": row.steps,
        "evaluation_episodes": row.episodes,
        "random": row.random,
        "source": row.source,
        "device": jax.devices()[0].device_kind,
        "versions": folders.versions(),
    }


def _peer_scores(path: pathlib.Path, row: Row) -> np.ndarray:
    score = row.references["match"][0]
    with open(path, newline="", encoding="utf-8") as file:
        found = np.array([float(line[score]) for line in csv.DictReader(file)])
    if not len(found):
        raise SettingError(f"--peer must hold a score {score} for each seed, got an empty {path}")
    return np.where(np.isfinite(found), found, row.random)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", choices=sorted(ROWS), required=True)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first-seed", type=int, default=JUDGED_FROM)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/learning"))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="for tuning")
    parser.add_argument(
        "--peer", type=pathlib.Path, help="CSV of a peer's scores, in a column T, E"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one row, prints how it compares and leaves tables and curves."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = _parser().parse_args(arguments)
    row, seeds = ROWS[args.row], range(args.first_seed, args.first_seed + args.seeds)
    changes = dict(text.split("=") for text in args.set)
    changes = {k: parse_value(v, getattr(row.agent, k)) for k, v in changes.items()}
    row = row._replace(agent=change(row.agent, changes))
    # Mistakes come to light here, not after training, nor as crashes of all seeds.
    peer = _peer_scores(args.peer, row) if args.peer else None
    check_experiment(Experiment(args.row, row.environment, row.agent, row.trainer, row.steps))
    args.output.mkdir(parents=True, exist_ok=True)
    results, began = [], time.perf_counter()
    for result in run(row, seeds):
        results.append(result)
        scores, seconds = f"T {result.T:7.1f}  E {result.E:7.1f}", time.perf_counter() - began
        print(f"seed {result.seed}: {scores}  after {seconds:.0f} s", flush=True)
    results.sort(key=lambda result: result.seed)
    tuning = bool(args.set) or args.first_seed < JUDGED_FROM
    summary = {"row": args.row, "seeds": list(seeds), "tuning": tuning}
    summary |= {"seconds": round(time.perf_counter() - began)}
    summary |= summarise(row, results, peer) | _circumstances(row, arguments)
    write(args.output, args.row, row, results, summary)
    print(f"row {args.row}: {row.agent} in {row.environment}, {row.steps:,} steps, {seeds}")
    print(f"  judged against {row.source}" if not tuning else "  for tuning only, not a judgement")
    print(*(f"  {line}" for line in lines(summary)), sep="\n")


if __name__ == "__main__":
    main()
