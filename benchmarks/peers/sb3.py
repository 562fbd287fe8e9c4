"""stable-baselines3: PyTorch on the host."""

from collections.abc import Callable
from typing import Any

import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.peers.serve import Advance, serve
from benchmarks.peers.workloads import LEARNING_STARTS, Replay, Workload

ENVIRONMENTS = {"ppo": "CartPole-v1", "dqn": "CartPole-v1", "sac": "Pendulum-v1"}


def arguments(workload: Workload) -> dict:
    """Returns the arguments of the algorithm, which SBX shares."""
    settings = workload.settings
    vec_env = make_vec_env(ENVIRONMENTS[workload.algorithm], settings.num_envs, seed=0)
    common = {"policy": "MlpPolicy", "env": vec_env, "seed": 0, "device": "cpu"}
    if not isinstance(settings, Replay):
        return common | {
            "n_steps": settings.unroll_length,
            "n_epochs": settings.epochs,
            "batch_size": settings.batch // settings.minibatches,
            "ent_coef": 0.01,
        }
    replay = {
        "buffer_size": settings.capacity,
        "batch_size": settings.batch,
        "learning_starts": LEARNING_STARTS,
        "train_freq": settings.period,
        "gradient_steps": settings.updates,
        "policy_kwargs": {"net_arch": list(settings.hidden)},
    }
    if workload.algorithm == "dqn":
        replay |= {"target_update_interval": 500, "learning_rate": 2.5e-4}
    return common | replay


def learner(model: Any, chunk: int, updates: Callable[[], int]) -> Advance:
    """Returns how to advance a model that has taken `updates()` gradient steps so far."""

    def advance(chunks):
        model.learn(chunks * chunk, reset_num_timesteps=False)
        return model.num_timesteps, updates()

    return advance


def make(workload: Workload, chunk: int) -> Advance:
    """Returns how to advance the algorithm of the workload."""
    # More are slower for networks as small as this.
    torch.set_num_threads(1)
    model = {"ppo": PPO, "dqn": DQN, "sac": SAC}[workload.algorithm](**arguments(workload))
    optimizer = (model.critic if workload.algorithm == "sac" else model.policy).optimizer
    return learner(model, chunk, lambda: int(next(iter(optimizer.state.values()))["step"]))


if __name__ == "__main__":
    serve(make)
