"""How well agents learn, by a fixed protocol: `python -m benchmarks.learning --row 1`.

A row fixes agent, environment, budget and reference. Scores are those of the last parameters, never
the best: T, the mean return of the last 100 training episodes, and E, the mean return of 100 greedy
ones. The statistic is the interquartile mean over seeds with a 95 % percentile bootstrap interval.
Seeds 0 to 9 are for tuning; rows are judged on seeds from 1000.
"""

import argparse
import csv
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from agents_zoo import reinforce
from rlws import environments, evaluation
from rlws.agent import AgentConfig
from rlws.trainers.device import Program

JUDGED_FROM = 1000
RESAMPLES = 10_000
CHUNK = 20_000  # environment steps


class Row(NamedTuple):
    """What is learned, and how well others learn it."""

    agent: AgentConfig
    environment: str
    steps: int
    match: float  # T
    stretch: float  # T
    random: float  # T of random actions
    source: str


ROWS = {
    1: Row(
        reinforce.Config(),
        "jax:CartPole-v1",
        200_000,
        483.0,
        497.0,
        22.2,
        "SLM-Lab, BENCHMARKS.md: REINFORCE and A2C at this budget, 4 sessions",
    )
}


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Returns the mean of the middle half: a quarter is cut off each end, rounded down."""
    ordered = np.sort(scores, axis=axis)
    count = ordered.shape[axis]
    middle = np.arange(count // 4, count - count // 4)
    return np.take(ordered, middle, axis=axis).mean(axis=axis)


def interval(scores: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % percentile bootstrap interval of the interquartile mean of scores [n]."""
    random = np.random.default_rng(seed)
    samples = random.choice(scores, (RESAMPLES, len(scores)))
    low, high = np.percentile(interquartile_mean(samples), [2.5, 97.5])
    return float(low), float(high)


def scores(row: Row, seeds: range) -> np.ndarray:
    """Returns T and E of each seed, [seeds, 2]; compiles once for all of them."""
    environment = environments.make(row.environment)
    agent = row.agent.make(environment.spec())
    program = Program(agent, environment, 1)
    init, advance = jax.jit(program.init), jax.jit(program.advance, donate_argnums=0)
    evaluate = evaluation.evaluator(agent, environment, 100, JUDGED_FROM)
    found = []
    for seed in seeds:
        began, run, steps, returns = time.perf_counter(), init(seed), 0, []
        while steps < row.steps:
            run, log = advance(run, min(CHUNK, row.steps - steps), 2**31 - 1)
            steps += int(log.steps)
            ended = np.asarray(log.ended)[: log.rows].reshape(-1, 2)
            returns.extend(ended[ended[:, 1] > 0, 0])
        training, greedy = np.mean(returns[-100:]), evaluate(run.state.learner.params)[0].mean()
        found.append((training, greedy))
        seconds = time.perf_counter() - began
        print(f"seed {seed}: T {training:6.1f}  E {greedy:6.1f}  {seconds:4.1f} s", flush=True)
    return np.array(found)


def verdict(low: float, high: float, reference: float, tolerance: float = 0.0) -> str:
    """Returns "match" if the interval lies above reference - tolerance, "fail" if below."""
    if low >= reference - tolerance:
        return "match"
    return "fail" if high < reference else "undecided"


def main() -> None:
    """Runs one row and prints how it compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", type=int, choices=sorted(ROWS), required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=JUDGED_FROM)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/learning"))
    args = parser.parse_args()
    row, seeds = ROWS[args.row], range(args.first_seed, args.first_seed + args.seeds)
    found = scores(row, seeds)
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / f"row{args.row}.csv", "w", newline="") as file:
        csv.writer(file).writerows([("seed", "T", "E"), *zip(seeds, *found.T, strict=True)])
    print(f"row {args.row}: {row.agent} in {row.environment}, {row.steps:,} steps, {seeds}")
    for name, values in zip("TE", found.T, strict=True):
        low, high = interval(values)
        print(
            f"  {name}: IQM {interquartile_mean(values):.1f} [{low:.1f}, {high:.1f}]  mean "
            f"{values.mean():.1f}  worst {values.min():.1f}  at least 475: {(values >= 475).sum()}"
            f"/{len(values)}"
        )
    low, high = interval(found[:, 0])
    tolerance = 0.02 * abs(row.match - row.random)  # the reference is a table without an interval
    print(f"  T against {row.match} ({row.source}): {verdict(low, high, row.match, tolerance)}")
    print(f"  T against the stretch {row.stretch}: {verdict(low, high, row.stretch)}")


if __name__ == "__main__":
    main()
