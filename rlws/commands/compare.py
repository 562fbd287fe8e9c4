"""`rlws compare A B`: which of two is better, and how sure that is."""

import argparse
import datetime
import pathlib
import shlex

from rlws.analysis.comparison.sides import make_sides, scores
from rlws.analysis.results import SCORE
from rlws.settings import SettingError, whole

EPILOG = """A and B are folders of runs or sweeps: `rlws compare A B`. Of several for each side,
those of B come after --against: `rlws compare A1 A2 --against B1 B2`. One folder, or more than two,
may hold the runs of two settings: `rlws compare SWEEP`. The statistics are over seeds, so a side
wants several."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("directories", nargs="+", metavar="DIR", help="A and B; see below")
    parser.add_argument("--against", nargs="+", metavar="DIR", help="all of B")
    parser.add_argument(
        "--metric",
        default=SCORE,
        help=f"entry of summary.json, name:min if less is better; {SCORE}",
    )
    parser.add_argument(
        "--margin", type=float, default=0.0, help="largest difference that does not matter; 0"
    )
    parser.add_argument(
        "--failed", type=float, metavar="SCORE", help="what a run counts that an error ended"
    )
    parser.add_argument(
        "--scale",
        action="append",
        default=[],
        metavar="ENVIRONMENT=LOW,HIGH",
        help="returns that count as 0 and 1, where there are several environments",
    )
    parser.add_argument("--output", metavar="FOLDER", help="results/comparisons/TIME")
    parser.add_argument(
        "--until-decided", action="store_true", help="train more seeds of both until it is clear"
    )
    parser.add_argument("--batch", type=whole, default=5, help="seeds between looks; 5")
    parser.add_argument("--max-seeds", type=whole, default=40, help="of each side; 40")


def run(args: argparse.Namespace) -> None:
    """Compares, prints and writes."""
    from rich.console import Console

    from rlws.analysis.comparison.more_seeds import check_plan, until_decided
    from rlws.analysis.comparison.outcome import Comparison, new_folder
    from rlws.analysis.comparison.sequential import Look
    from rlws.analysis.comparison.verdict import judge

    plan = (args.batch, args.max_seeds) if args.until_decided else None
    if plan:
        check_plan(*plan)
    if not 0 <= args.margin < float("inf"):
        raise SettingError(f"--margin must be at least 0 and finite, got {args.margin}; try 0")
    scales = dict(map(_scale, args.scale))
    if args.against is None and len(args.directories) == 2:
        args.directories, args.against = args.directories[:1], args.directories[1:]
    sides, notes = make_sides(args.directories, args.against)
    score = lambda side: scores(side, args.metric, args.failed, scales)
    found = score(sides[0]), score(sides[1])  # before anything is written
    now = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"
    output = pathlib.Path(args.output or pathlib.Path("results", "comparisons", now))
    new_folder(output)
    looks: list[Look] = []
    if plan:
        sides, looks = until_decided(sides, score, plan, args.margin, output)
        found = score(sides[0]), score(sides[1])
    verdict = looks[-1].verdict if looks else judge(*found, args.margin)
    command = _command(args, *([str(output / x)] * (output / x).is_dir() for x in "AB"))
    comparison = Comparison(sides, found, args.metric, verdict, looks, plan, notes, command)
    comparison.write(output)
    comparison.show(Console(highlight=False))
    print(f"\ncomparison.png, .csv and .json in {output}")


def _scale(text: str) -> tuple[str, tuple[float, float]]:
    environment, _, bounds = text.rpartition("=")
    try:
        low, high = map(float, bounds.split(","))
    except ValueError:
        low = high = 0.0
    if not (environment and low < high):
        raise SettingError(
            f"--scale must be ENVIRONMENT=LOW,HIGH with LOW below HIGH, got {text!r}; such as "
            "gym:CartPole-v1=22,500"
        )
    return environment, (low, high)


def _command(args: argparse.Namespace, new_ours: list[str], new_theirs: list[str]) -> str:
    """Returns the command that comes to the same verdict from the runs that are there now."""
    against = [] if args.against is None else ["--against", *args.against]
    words = [*args.directories, *new_ours, *against, *new_theirs]
    if args.metric != SCORE:
        words += ["--metric", args.metric]
    if args.margin:
        words += ["--margin", str(args.margin)]
    if args.failed is not None:
        words += [f"--failed={args.failed}"]  # may begin with a minus
    for text in args.scale:
        words += ["--scale", text]
    if args.until_decided:
        words += ["--until-decided", "--batch", args.batch, "--max-seeds", args.max_seeds]
    return shlex.join(map(str, ["rlws", "compare", *words]))
