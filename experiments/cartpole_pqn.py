"""PQN on CartPole, all of it on the device."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import pqn
from rlws.trainers import DeviceTrainer

experiment = rlws.Experiment(
    name="cartpole_pqn",
    environment="jax:CartPole-v1",
    agent=pqn.Config(anneal_steps=500_000),
    trainer=DeviceTrainer(num_envs=4),
    steps=500_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
