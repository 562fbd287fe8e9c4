"""PPO from the pictures of MinAtar's Breakout."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import ppo
from rlws import networks
from rlws.trainers import DeviceTrainer

experiment = rlws.Experiment(
    name="breakout_ppo",
    environment="gymnax:Breakout-MinAtar",
    agent=ppo.Config(networks.CNN(), unroll_length=128, anneal_steps=1_000_000),
    trainer=DeviceTrainer(num_envs=16),
    steps=1_000_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
