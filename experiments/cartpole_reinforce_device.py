"""REINFORCE with a learned baseline on CartPole, all of it on the device."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import reinforce
from rlws.trainers import DeviceTrainer

experiment = rlws.Experiment(
    name="cartpole_reinforce_device",
    environment="jax:CartPole-v1",
    agent=reinforce.Config(),
    trainer=DeviceTrainer(),
    steps=300_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
