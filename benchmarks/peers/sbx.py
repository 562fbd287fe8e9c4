"""SBX: stable-baselines3 with the networks and gradients in JAX."""

from sbx import DQN, PPO, SAC

from benchmarks.peers.sb3 import arguments, learner
from benchmarks.peers.serve import Advance, serve
from benchmarks.peers.workloads import Workload


def make(workload: Workload, chunk: int) -> Advance:
    """Returns how to advance the algorithm of the workload."""
    model = {"ppo": PPO, "dqn": DQN, "sac": SAC}[workload.algorithm](**arguments(workload))
    state = "actor_state" if workload.algorithm == "ppo" else "qf_state"
    return learner(model, chunk, lambda: int(getattr(model.policy, state).step))


if __name__ == "__main__":
    serve(make)
