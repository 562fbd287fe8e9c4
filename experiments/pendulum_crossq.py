"""CrossQ on Pendulum, all of it on the device."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import crossq
from rlws.networks import MLP, BatchNorm
from rlws.trainers import DeviceTrainer

experiment = rlws.Experiment(
    name="pendulum_crossq",
    environment="gymnax:Pendulum-v1",
    # Critics of 2,048 units, as the paper has them, take a GPU.
    agent=crossq.Config(critic_backbone=MLP((256, 256), "relu", batch_norm=BatchNorm())),
    trainer=DeviceTrainer(num_envs=1),
    steps=20_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
