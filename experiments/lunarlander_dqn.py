"""Double DQN with prioritised replay on LunarLander."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

import rlws
from agents_zoo import dqn
from rlws.trainers import HostTrainer

experiment = rlws.Experiment(
    name="lunarlander_dqn",
    environment="gym:LunarLander-v3",
    agent=dqn.Config(period=4, prioritised=True),
    trainer=HostTrainer(),
    steps=300_000,
)

if __name__ == "__main__":
    rlws.main(experiment)
