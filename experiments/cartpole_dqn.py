"""DQN on CartPole."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import dqn
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="cartpole_dqn",
    environment="gym:CartPole-v1",
    agent=dqn.Config(learning_rate=1e-4, n_step=3, period=10, epsilon_steps=100_000),
    trainer=HostTrainer(),
    steps=200_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
