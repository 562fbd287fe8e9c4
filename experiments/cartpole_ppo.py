"""PPO on CartPole."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import ppo
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="cartpole_ppo",
    environment="gym:CartPole-v1",
    agent=ppo.Config(anneal_steps=500_000),
    trainer=HostTrainer(num_envs=4),
    steps=500_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
