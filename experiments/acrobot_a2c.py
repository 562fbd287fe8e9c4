"""A2C on Acrobot, all of it on the device."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import a2c
from rlws.trainers import DeviceTrainer

experiment = rlws.Experiment(
    name="acrobot_a2c",
    environment="gymnax:Acrobot-v1",
    agent=a2c.Config(),
    trainer=DeviceTrainer(num_envs=8),
    steps=300_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
