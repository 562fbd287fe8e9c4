"""PPO on HalfCheetah, sixteen environments at once."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import ppo
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="halfcheetah_ppo",
    environment="gym:HalfCheetah-v5",
    agent=ppo.Config(unroll_length=128, anneal_steps=1_000_000),
    trainer=HostTrainer(num_envs=16),  # envpool, where installed, is faster
    steps=1_000_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
