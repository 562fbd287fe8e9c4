"""SAC on Pendulum."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # runs by its path, also uninstalled

from agents_zoo import sac
from rlws.cli import main
from rlws.experiment import Experiment
from rlws.trainers import HostTrainer

experiment = Experiment(
    name="pendulum_sac",
    environment="gym:Pendulum-v1",
    agent=sac.Config(),
    trainer=HostTrainer(),
    steps=20_000,
)

if __name__ == "__main__":
    main(experiment)
