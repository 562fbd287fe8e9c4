"""TD3 on Pendulum."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import td3
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="pendulum_td3",
    environment="gym:Pendulum-v1",
    agent=td3.Config(learning_rate=1e-3, critic_learning_rate=1e-3),
    trainer=HostTrainer(),
    steps=20_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
