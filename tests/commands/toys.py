"""Runs of seconds, for tests of what is done with their folders."""

import csv
import dataclasses

from agents_zoo import ppo
from rlws.networks import MLP
from rlws.numerics import checkpoint
from rlws.runs import launch
from rlws.runs.experiment import Checkpoints, Evaluation, Experiment
from rlws.trainers import DeviceTrainer

TOY = Experiment(
    name="toy",
    environment="jax:Catch",
    agent=ppo.Config(backbone=MLP((8,)), unroll_length=10, minibatches=2, epochs=2),
    trainer=DeviceTrainer(num_envs=2),
    steps=400,
    evaluation=Evaluation(episodes=6),
    checkpoint=Checkpoints(period=100, keep=9),
    quiet=True,
)


def run_toy(folder, **changes):
    """Runs the toy, with changes, in a folder, which it returns."""
    launch.run(dataclasses.replace(TOY, directory=str(folder), **changes))
    return folder


def tree(folder):
    """Returns every file below a folder, and what is in it; but for locks."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def rows(folder):
    """Returns the rows of metrics.csv without what no two runs share."""
    with open(folder / "metrics.csv", newline="") as file:
        return [
            {k: v for k, v in row.items() if v and k not in ("seconds", "steps_per_second")}
            for row in csv.DictReader(file)
        ]


def arrays(folder, step=None):
    """Returns the arrays of a checkpoint, by default the newest, as bytes."""
    name = checkpoint.names(folder / "checkpoints")[-1] if step is None else f"{step:012d}"
    found = checkpoint.read(folder / "checkpoints" / name).arrays
    return {name: x.tobytes() for name, x in found.items()}


def steps(folder):
    """Returns the steps of all checkpoints."""
    return [int(name) for name in checkpoint.names(folder / "checkpoints")]
