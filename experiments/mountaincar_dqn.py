"""DQN on MountainCar."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import dqn
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="mountaincar_dqn",
    environment="gym:MountainCar-v0",
    agent=dqn.Config(period=4),
    trainer=HostTrainer(),
    steps=150_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
