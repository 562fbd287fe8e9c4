"""TQC on Pendulum."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import tqc
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="pendulum_tqc",
    environment="gym:Pendulum-v1",
    agent=tqc.Config(),
    trainer=HostTrainer(),
    steps=20_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
