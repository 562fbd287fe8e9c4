"""REINFORCE with a learned baseline on gymnasium's CartPole."""

from agents_zoo import reinforce
from rlws.cli import main
from rlws.experiment import Experiment
from rlws.trainers import HostTrainer

experiment = Experiment(
    name="cartpole_reinforce",
    environment="gym:CartPole-v1",
    agent=reinforce.Config(),
    trainer=HostTrainer(),
    steps=200_000,
)

if __name__ == "__main__":
    main(experiment)
