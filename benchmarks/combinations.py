"""Agents that nobody has written, made of parts: `python -m benchmarks.combinations`.

An agent of replay is a choice of each of its parts: what its critic says of a return, which policy
its targets follow, how it explores, what it learns from. Of the choices that are no agent of the
zoo some are drawn, by a seed, and trained. A run has learned if its greedy return is more than half
way from that of random actions to the best.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agents_zoo import dqn, sac
from benchmarks.learning import run
from benchmarks.rows import Row
from rlws.agent import AgentConfig
from rlws.critics import Categorical, ImplicitQuantiles, Quantiles, Scalar
from rlws.networks import MLP
from rlws.settings import change
from rlws.trainers import DeviceTrainer

Choice = tuple[str, ...]  # the name of what was chosen, for each part


class Family(NamedTuple):
    """What agents of one kind are made of, and where they are tried."""

    base: AgentConfig  # what is the same for all
    environment: str
    steps: int
    random: float  # return of random actions
    best: float
    parts: Mapping[str, Mapping[str, dict[str, Any]]]  # part: name of a choice: settings


def critics(low: float, high: float, quantiles: int) -> dict[str, dict[str, Any]]:
    """Returns what may be said of returns between two bounds."""
    return {
        "scalar": {},
        "symlog": {"critic": Scalar(scale="symlog")},
        "histogram": {"critic": Categorical(101, low, high)},
        "HL-Gauss": {"critic": Categorical(101, low, high, smoothing=0.75)},
        "quantiles": {"critic": Quantiles(quantiles)},
        "implicit quantiles": {"critic": ImplicitQuantiles()},
    }


SMALL = MLP((64, 64), "relu")
FAMILIES = {
    "values": Family(
        dqn.Config(SMALL, epsilon_steps=5_000, learning_rate=5e-4, period=4),
        "jax:CartPole-v1",
        30_000,
        22.0,
        500.0,
        {
            "critic": critics(-100.0, 100.0, 51),
            "target": {
                "max": {"double": False},
                "double": {"double": True},
                "softmax": {"temperature": 0.03},
                "Munchausen": {"temperature": 0.03, "munchausen": 0.9},
            },
            "exploration": {
                "epsilon": {},
                "Boltzmann": {"boltzmann": 0.1},
                "noisy": {"noise": 0.5, "epsilon_start": 0.0, "epsilon_end": 0.0},
            },
            "experience": {
                "uniform": {},
                "three steps": {"n_step": 3},
                "by priority": {"prioritised": True},
            },
            "network": {"plain": {}, "duelling": {"duelling": True}},
        },
    ),
    "continuous": Family(
        sac.Config(SMALL, learning_rate=1e-3),
        "gymnax:Pendulum-v1",
        15_000,
        -1220.0,
        -145.0,
        {
            "critic": critics(-1500.0, 0.0, 25),
            "critics": {
                "two": {},
                "five": {"critics": 5},
                "lowest of two of five": {"critics": 5, "subset": 2},
            },
            "experience": {"a step": {}, "three steps": {"n_step": 3}},
            "layers": {
                "plain": {},
                "normalised": {"critic_backbone": MLP((64, 64), "relu", layer_norm=True)},
                "dropped out": {
                    "critic_backbone": MLP((64, 64), "relu", layer_norm=True, dropout=0.01)
                },
            },
            "policy": {"each update": {}, "every other": {"policy_period": 2}},
        },
    ),
}


def choices(family: Family) -> Iterator[Choice]:
    """Yields all choices that differ in two parts or more from the first of each part.

    What differs in one is published, mostly, and in the zoo.
    """
    first = tuple(next(iter(part)) for part in family.parts.values())
    for choice in itertools.product(*family.parts.values()):
        if sum(a != b for a, b in zip(choice, first, strict=True)) > 1:
            yield choice


def config(family: Family, choice: Choice) -> AgentConfig:
    """Returns the agent that is made of a choice."""
    settings: dict[str, Any] = {}
    for name, part in zip(choice, family.parts.values(), strict=True):
        settings |= part[name]
    return change(family.base, settings)


def row(family: Family, agent: AgentConfig) -> Row:
    """Returns what `benchmarks.learning` runs."""
    reference = {"match": ("E", (family.random + family.best) / 2)}
    shape = family.environment, family.steps, reference, family.random, "half way"
    return Row(agent, *shape, DeviceTrainer())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=sorted(FAMILIES), default="values")
    parser.add_argument("--draw", type=int, default=0, help="seed of the draw")
    parser.add_argument("--count", type=int, default=5, help="how many are trained")
    parser.add_argument("--seeds", type=int, default=3, help="of each")
    parser.add_argument("--list", action="store_true", help="only say what would be trained")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of what was drawn, and what came of it."""
    args = _parser().parse_args(arguments)
    family = FAMILIES[args.family]
    every = list(choices(family))
    drawn = np.random.default_rng(args.draw).choice(len(every), args.count, replace=False)
    print(f"{args.count} of {len(every)} drawn by {args.draw}; {family.environment}, "
          f"{family.steps:,} steps, seeds 0 to {args.seeds - 1}\n")  # fmt: skip
    print("| " + " | ".join(family.parts) + " | greedy returns | learned | seconds |")
    print("|" + "---|" * (len(family.parts) + 3))
    for number in drawn:
        choice, began = every[number], time.perf_counter()
        cells = [*choice]
        if not args.list:
            found = row(family, config(family, choice))
            results = sorted(run(found, range(args.seeds)))
            _, half = found.references["match"]
            learned = sum(half < result.E for result in results)
            cells.append(", ".join(f"{result.E:.0f}" for result in results))
            cells += [f"{learned} of {args.seeds}", f"{time.perf_counter() - began:.0f}"]
            cells += [result.failure for result in results if result.failure]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
