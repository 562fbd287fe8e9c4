"""Agents on the Behaviour Suite, scored by its own analysis: `python -m benchmarks.behaviour`.

Osband et al., 2020, "Behaviour Suite for Reinforcement Learning", https://arxiv.org/abs/1908.03568.

One configuration of an agent plays bsuite's ids, each for as many episodes as its score is of, one
environment a run. What is played is kept in `--output` as bsuite records it, so the command
begun again plays only what is missing, and all that bsuite has for such files can be asked of them.
"""

import argparse
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from bsuite import sweep
from bsuite.experiments import summary_analysis
from bsuite.logging import csv_load

from agents_zoo import dqn, ppo
from rlws.agent import AgentConfig
from rlws.networks import GRU, MLP
from rlws.trainers import HostTrainer

EXPERIMENTS = {
    "dqn": (
        *("bandit", "bandit_noise", "bandit_scale", "catch", "catch_noise", "catch_scale"),
        *("discounting_chain", "umbrella_length", "umbrella_distract"),
        *("cartpole", "cartpole_noise", "cartpole_scale", "cartpole_swingup"),
        *("mountain_car", "mountain_car_noise", "mountain_car_scale"),
    ),
    "ppo": ("memory_len", "memory_size"),
}
AGENTS: dict[str, AgentConfig] = {
    # As far as settings go what bsuite's own DQN has, with a double target and Adam's usual clip.
    "dqn": dqn.Config(
        backbone=MLP((50, 50), "relu"),
        learning_rate=1e-3,
        target_period=4,
        epsilon_start=0.05,
        capacity=10_000,
        min_size=100,
        batch_size=32,
    ),
    "ppo": ppo.Config(
        backbone=GRU(), unroll_length=256, sequence_length=128, minibatches=2, epochs=4
    ),
}


def chosen(experiments: Sequence[str], every: int) -> list[str]:
    """Returns the ids of these experiments, or of each the first and every so many further."""
    return [
        name
        for experiment in experiments
        for name in [i for i in sweep.SWEEP if i.partition("/")[0] == experiment][::every]
    ]


def play(config: AgentConfig, name: str, folder: pathlib.Path) -> int:
    """Plays an id, unless it is there; returns the steps it took.

    It is seeded by its number, so that ids alike but for their number are runs of several seeds.
    """
    record = folder / f"bsuite_id_-_{name.replace('/', '-')}.csv"
    if record.exists():
        return 0
    seed, unfinished = int(name.partition("/")[2]), folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    *_, last = HostTrainer().train(
        config,
        f"bsuite:{name},record={unfinished}",
        seed=seed,
        episodes=sweep.EPISODES[name],
        report_period=100_000,
    )
    (unfinished / f"{seed}-0" / record.name).rename(record)
    shutil.rmtree(unfinished)
    return last.steps


def scores(folder: pathlib.Path) -> pd.DataFrame:
    """Returns bsuite's score of each experiment that was played, and of how many ids it is."""
    found, _ = csv_load.load_bsuite(str(folder))
    table = summary_analysis.bsuite_score(found)
    table["ids"] = table.bsuite_env.map(found.groupby("bsuite_env").bsuite_id.nunique())
    return table


def tags(table: pd.DataFrame) -> dict[str, float]:
    """Returns bsuite's mean score of the experiments of each tag, of those that were played."""
    found = summary_analysis.ave_score_by_tag(table, [])
    every = zip(found.tag, found.score, strict=True)
    return {tag: score for tag, score in sorted(every) if np.isfinite(score)}


def lines(table: pd.DataFrame) -> Iterator[str]:
    """Yields what was reached, for people."""
    for row in table.itertuples():
        yield f"{row.bsuite_env:<20}{row.score:6.2f}  {row.ids:2d} ids  {row.type}"
    yield f"{'mean':<20}{table.score.mean():6.2f}"
    for tag, score in tags(table).items():
        yield f"  {tag:<18}{score:6.2f}"


def radar(table: pd.DataFrame, title: str, path: pathlib.Path) -> None:
    """Draws the score of each tag on an axis of its own, as bsuite does."""
    from matplotlib.figure import Figure

    found = tags(table)
    angles = np.linspace(0, 2 * np.pi, len(found), endpoint=False)
    values = np.array([*found.values()])
    drawn = Figure((5.2, 5.2), dpi=150, layout="constrained")
    axes = drawn.add_subplot(projection="polar")
    axes.fill(angles, values, alpha=0.25)
    axes.plot(np.append(angles, angles[0]), np.append(values, values[0]), "o-", ms=4)
    axes.set_xticks(angles, [tag.replace("_", " ") for tag in found])
    axes.set_ylim(0, 1)
    axes.set_yticks([0.25, 0.5, 0.75, 1.0])
    axes.set_title(title, fontsize=11)
    drawn.savefig(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", choices=sorted(AGENTS), default="dqn")
    parser.add_argument("--experiments", nargs="*", help="by default those of the agent's row")
    parser.add_argument("--every", type=int, default=1, help="one in so many ids")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/bsuite"))
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Plays what is missing, then prints and draws the scores of all that is there."""
    args = _parser().parse_args(arguments)
    folder = args.output / args.agent
    folder.mkdir(parents=True, exist_ok=True)
    for name in chosen(args.experiments or EXPERIMENTS[args.agent], args.every):
        began = time.perf_counter()
        if steps := play(AGENTS[args.agent], name, folder):
            seconds = time.perf_counter() - began
            print(f"{name:<24}{steps:9,} steps  {steps / seconds:8,.0f} a second", flush=True)
    table = scores(folder)
    print(*lines(table), sep="\n")
    table.to_csv(args.output / f"{args.agent}.csv", index=False)
    radar(table, f"{args.agent.upper()} on the Behaviour Suite", args.output / f"{args.agent}.png")


if __name__ == "__main__":
    main()
