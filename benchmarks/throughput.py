"""How fast we are next to others: `python -m benchmarks.throughput --workload host_ppo_4`.

Each contestant is a process of its own (see `benchmarks/peers/`) that is idle between its segments;
those of all alternate, and what counts is the median over rounds of the ratios. Apart from that,
how long each takes from the start of its process to its first update, with an empty and with a
filled compilation cache of JAX, and for how much of the former XLA compiles.
"""

import argparse
import contextlib
import csv
import os
import pathlib
import statistics
import sys
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from benchmarks.measure import Segment, alternate
from benchmarks.peers.contestant import ROOT, Contestant, LeftOutError, Start, command, start
from benchmarks.peers.workloads import CPU_WORKLOADS, WORKLOADS, Workload

SEGMENT_SECONDS = 1.0
HEADER = (
    "| workload | contestant | steps/s | the first's speed / its | updates per 1000 steps "
    "| start, s | filled cache | compiling |\n|---|---|---:|---:|---:|---:|---:|---:|"
)


class Runs(Protocol):
    """What a contestant can do."""

    def run(self, chunks: int) -> dict[str, float]:
        """Has so many chunks done; returns their steps, seconds and updates."""


class Speed(NamedTuple):
    """What was measured of one contestant."""

    seconds: list[float]  # a step, in each round
    updates_per_step: float


def race(
    contestants: Mapping[str, Runs], workload: Workload, rounds: int
) -> tuple[dict[str, Speed], dict[str, str]]:
    """Has contestants work in turns, each about a second at a time.

    Returns:
      The speeds of those that can, and why the others cannot.
    """
    done = {name: [0.0, 0.0] for name in contestants}
    segments, absent = dict[str, Segment](), dict[str, str]()
    for name, contestant in contestants.items():
        try:
            segments[name] = _segment(contestant, workload, done[name])
        except LeftOutError as error:
            absent[name] = str(error)
    times = alternate(segments, rounds)
    rates = {name: updates / steps for name, (steps, updates) in done.items() if steps}
    return {name: Speed(seconds, rates[name]) for name, seconds in times.items()}, absent


def _segment(contestant: Runs, workload: Workload, done: list[float]) -> Segment:
    # Warms up until there have been updates, then sees how much takes a second.
    contestant.run(workload.settings.first // workload.chunk + 1)
    chunks = max(1, round(SEGMENT_SECONDS / contestant.run(1)["seconds"]))

    def segment():
        answer = contestant.run(chunks)
        done[0] += answer["steps"]
        done[1] += answer["updates"]
        return int(answer["steps"])

    return segment


def ratios(speeds: dict[str, Speed]) -> dict[str, tuple[float, float, float]]:
    """Returns how many times as fast as each contestant the first is.

    The median over the rounds, the first and the last decile.
    """
    table = np.array([speed.seconds for speed in speeds.values()])
    median, low, high = np.quantile(table / table[:1], [0.5, 0.1, 0.9], axis=1).tolist()
    return dict(zip(speeds, zip(median, low, high, strict=True), strict=True))


def rows(name: str, speeds: dict[str, Speed], starts: dict[str, Start]) -> list[str]:
    """Returns the lines of the markdown table, one for each contestant."""
    lines = []
    for contestant, (median, low, high) in ratios(speeds).items():
        seconds, updates_per_step = speeds[contestant]
        rate, updates = 1 / statistics.median(seconds), 1000 * updates_per_step
        ratio = f"{median:.2f} [{low:.2f}, {high:.2f}]"
        cells = [name, contestant, f"{rate:,.0f}", ratio, f"{updates:.4g}"]
        cells += [f"{x:.1f}" for x in starts[contestant]] if contestant in starts else ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def measure(name: str, chosen: list[str], rounds: int, start_runs: int, output: pathlib.Path):
    """Returns the lines of the table for one workload; keeps all the numbers in two files."""
    workload, absent = WORKLOADS[name], dict[str, str]()
    with contextlib.ExitStack() as stack:
        contestants = dict[str, Contestant]()
        for contestant in filter(chosen.__contains__, workload.contestants):
            try:
                made = Contestant(command(contestant, name, workload.chunk))
            except LeftOutError as error:
                absent[contestant] = str(error)
            else:
                contestants[contestant] = stack.enter_context(made)
        speeds, failed = race(contestants, workload, rounds)
    starts = dict[str, Start]()
    for contestant in speeds if start_runs else ():
        try:
            starts[contestant] = start(contestant, name, start_runs)
        except LeftOutError as error:
            print(f"{contestant} did not start again: {error}", flush=True)
    _write(
        output / f"{name}.csv",
        ("contestant", "round", "seconds_per_step"),
        [(x, *pair) for x, speed in speeds.items() for pair in enumerate(speed.seconds)],
    )
    _write(
        output / f"{name}_start.csv",
        ("contestant", *Start._fields),
        [(x, *seconds) for x, seconds in starts.items()],
    )
    lines = rows(name, speeds, starts) if speeds else []
    for contestant, reason in (absent | failed).items():
        lines.append(f"| {name} | {contestant} | left out: {reason} | | | | | |")
    return lines


def _write(path, header, values):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *values])


def main() -> None:
    """Measures the workloads asked for, by default those for a CPU, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = list(dict.fromkeys(x for w in WORKLOADS.values() for x in w.contestants))
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(CPU_WORKLOADS))
    parser.add_argument("--contestant", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--start-runs", type=int, default=1, help="0 leaves start-up out")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "results" / "throughput")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores\n\n{HEADER}", flush=True)
    table = [HEADER]
    for name in args.workload:
        lines = measure(name, args.contestant, args.rounds, args.start_runs, args.output)
        print(*lines, sep="\n", flush=True)
        table += lines
        (args.output / "table.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
