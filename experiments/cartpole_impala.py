"""IMPALA on CartPole, its actors in processes of their own (extra ray)."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import impala
from rlws.trainers import DistributedTrainer

experiment = rlws.Experiment(
    name="cartpole_impala",
    environment="gym:CartPole-v1",
    agent=impala.Config(),
    trainer=DistributedTrainer(num_envs=8, num_actors=2, wait_for="any", lookahead=1),
    steps=300_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
