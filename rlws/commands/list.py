"""`rlws list [agents|environments|experiments|runs]`: what there is, with a line on each."""

import argparse
import contextlib
import datetime
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlws.analysis.results import SCORE, Group, Result, gather, read
from rlws.analysis.statistics import interquartile_mean
from rlws.commands import catalogue
from rlws.settings import SettingError, choose, whole
from rlws.tracking.progress import number

KINDS = ("agents", "experiments", "environments", "runs")
LAST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument("kind", nargs="?", metavar="KIND", help=f"{', '.join(KINDS)}; all without")
    parser.add_argument("--results", default="results", metavar="FOLDER", help="of runs; results")
    parser.add_argument("--last", type=whole, default=LAST, help=f"runs at most, 0: all; {LAST}")


def run(args: argparse.Namespace) -> None:
    """Prints the lists."""
    if args.kind:
        choose("KIND", args.kind, KINDS)
    if args.last < 0:
        raise SettingError(f"--last must be at least 0, got {args.last}; 0 shows all runs")
    if args.kind == "runs" and not pathlib.Path(args.results).is_dir():
        raise SettingError(
            f"--results must be a folder that is there, got {args.results!r}; runs are kept in "
            "the folder results of where they were started"
        )
    console = Console(highlight=False, soft_wrap=False)
    for kind in (args.kind,) if args.kind else KINDS:
        if not args.kind:
            console.print(Text(f"\n{kind}", "bold"))
        if kind == "runs":
            _print_runs(console, pathlib.Path(args.results), args.last)
        elif kind == "environments":
            _print(console, catalogue.environments().items())
        else:
            package = {"agents": "agents_zoo", "experiments": "experiments"}[kind]
            _print(console, catalogue.modules(package).items())


def _print_runs(console: Console, folder: pathlib.Path, last: int) -> None:
    found = newest_first(folder)
    lines = [line(path, begun) for path, begun in (found[:last] if last else found)]
    if lines:
        _print(console, lines, ("run", "begun", "steps", "seed", "evaluation", "state"))
    else:
        _print(console, [("none yet", "")])
    if last and len(found) > last:
        console.print(Text(f"{len(found) - last} older ones: --last 0 shows all"))


def newest_first(folder: pathlib.Path) -> list[tuple[pathlib.Path, float]]:
    """Returns the folders of runs and sweeps, EXPERIMENT/RUN or RUN, and when they began."""
    runs = {path.parent for path in folder.glob("*/config.json")}
    inner = {path.parent for path in folder.glob("*/*/config.json")}
    runs |= {path for path in inner if path.parent not in runs}  # not members of a sweep
    files = [path / "config.json" for path in runs if (path / "config.json").is_file()]
    found = [(path.parent, path.stat().st_mtime) for path in files]
    return sorted(found, key=lambda item: (-item[1], str(item[0])))


def line(path: pathlib.Path, begun: float) -> tuple[str, ...]:
    """Returns the cells of one run or sweep."""
    time = f"{datetime.datetime.fromtimestamp(begun):%Y-%m-%d %H:%M}"
    try:
        whole = read(path)
        members = gather([path])
    except SettingError:
        return str(path), time, "", "", "", "unreadable"
    steps = whole.summary.get("steps")
    if steps is None:
        steps = sum(_last_steps(member) for member in members)
    seeds = [str(member.seed) for member in members]
    shown = seeds[0] if len(seeds) == 1 else f"{len(seeds)} runs"
    scores = Group("", tuple(members)).numbers(SCORE)
    score = number(float(interquartile_mean(scores))) if scores.size else ""
    states = dict.fromkeys(result.state for result in (whole, *members))
    state = "; ".join(state for state in states if state != "finished") or "finished"
    return str(path), time, number(int(steps)), shown, score, state


def _last_steps(result: Result) -> float:
    with contextlib.suppress(SettingError, KeyError):
        return max(result.columns()["steps"], default=0.0)
    return 0.0


def _print(console: Console, rows: Iterable[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Prints a table; where stdout is no terminal, whole lines with tabs, for other programs."""
    rows = [*rows]
    if not console.is_terminal:
        for row in [header, *rows] if header else rows:
            print("\t".join(" ".join(cell.split()) for cell in row).rstrip(), file=console.file)
        return
    table = Table(box=None, pad_edge=False, show_header=bool(header), header_style="dim")
    names = header or ("", "")
    for i, name in enumerate(names, 1):
        justify: Any = "right" if name in ("steps", "seed", "evaluation") else "left"
        table.add_column(name, overflow="fold", no_wrap=i < len(names), justify=justify)
    room = console.width - max((len(row[0]) for row in rows), default=0) - 2
    for row in rows:
        cells = [Text(cell) for cell in row]
        if not header:  # names: a line each
            cells[-1].truncate(max(1, room), overflow="ellipsis")
        table.add_row(*cells)
    console.print(table)
