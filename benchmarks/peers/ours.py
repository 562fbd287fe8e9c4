"""rlws, as its users run it: the reports of a trainer."""

import dataclasses

from agents_zoo import dqn, ppo, sac
from benchmarks.peers.serve import Advance, serve
from benchmarks.peers.workloads import LEARNING_STARTS, Replay, Workload
from rlws.agent import AgentConfig
from rlws.networks import CNN, MLP
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.population import Member

ENVIRONMENTS = {
    ("device", False): "jax:CartPole-v1",
    ("device", True): "gymnax:Pendulum-v1",
    ("host", False): "gym:CartPole-v1",
    ("host", True): "gym:Pendulum-v1",
}
MINATAR = "gymnax:Breakout-MinAtar"


def config(workload: Workload) -> AgentConfig:
    """Returns the settings of the agent."""
    settings = workload.settings
    if not isinstance(settings, Replay):
        channels, hidden = settings.channels, settings.hidden
        return ppo.Config(
            backbone=CNN((channels,), mlp=MLP(hidden, "relu")) if channels else MLP(hidden, "tanh"),
            unroll_length=settings.unroll_length,
            epochs=settings.epochs,
            minibatches=settings.minibatches,
            entropy_cost=0.01,
            normalise_observations=False,
            scale_rewards=False,
        )
    made = (
        dqn.Config(double=False, target_period=500) if workload.algorithm == "dqn" else sac.Config()
    )
    return dataclasses.replace(
        made,
        backbone=MLP(settings.hidden, "relu"),
        batch_size=settings.batch,
        capacity=settings.capacity,
        min_size=LEARNING_STARTS,
        period=settings.period,
        updates=settings.updates,
    )


def make(workload: Workload, chunk: int) -> Advance:
    """Returns how to advance the workload, a report for each chunk."""
    settings = workload.settings
    seeds = getattr(settings, "seeds", 1)
    environment = ENVIRONMENTS[workload.place, workload.algorithm == "sac"]
    if getattr(settings, "channels", 0):
        environment = MINATAR
    # An update of PPO's learner is all epochs on a batch.
    each = 1 if isinstance(settings, Replay) else settings.epochs * settings.minibatches
    budget = {"steps": 10**9, "report_period": chunk // seeds}
    if workload.place == "device":
        if not isinstance(settings, Replay):
            # Rows that restart an episode are no steps: a batch has a little less than a chunk of
            # one batch, and is reported whole.
            budget["report_period"] = 9 * budget["report_period"] // 10
        members = [Member(seed, {}) for seed in range(seeds)]
        trainer = DeviceTrainer(num_envs=settings.num_envs)
        runs = trainer.train_all(config(workload), environment, members, **budget)
    else:
        # One after the other is what a few do best; many are stepped by gymnasium's own vector.
        many = settings.num_envs > 16
        host = HostTrainer(settings.num_envs, vectorization="native" if many else "serial")
        runs = ({0: report} for report in host.train(config(workload), environment, **budget))
    next(runs)  # the report before the first step

    def advance(chunks):
        for _ in range(chunks):
            members = next(runs).values()
        return sum(x.steps for x in members), each * sum(x.updates for x in members)

    return advance


if __name__ == "__main__":
    serve(make)
