"""REINFORCE with a learned baseline on gymnasium's CartPole."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import reinforce
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="cartpole_reinforce",
    environment="gym:CartPole-v1",
    agent=reinforce.Config(),
    trainer=HostTrainer(),
    steps=200_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
