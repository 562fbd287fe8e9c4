"""Recurrent PPO on Memory, which takes a core to solve; compare `--agent.backbone mlp`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import ppo
from rlws.networks import GRU
from rlws.trainers import DeviceTrainer

experiment = rlws.Experiment(
    name="memory_ppo",
    environment="jax:Memory",
    agent=ppo.Config(backbone=GRU(), unroll_length=32, minibatches=4, epochs=4),
    trainer=DeviceTrainer(num_envs=16),
    steps=100_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
