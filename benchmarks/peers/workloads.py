"""The work: the same algorithm, networks, batches and gradient steps for every contestant."""

from typing import Literal, NamedTuple

LEARNING_STARTS = 1000  # environment steps before the first update from a replay buffer


class PPO(NamedTuple):
    """Two networks, 4 epochs of 4 minibatches.

    With tanh layers; those of images are of relu, behind a 3x3 convolution.
    """

    num_envs: int
    seeds: int = 1  # vmapped
    unroll_length: int = 128
    epochs: int = 4
    minibatches: int = 4
    hidden: tuple[int, ...] = (64, 64)
    channels: int = 0  # of the convolution; 0: observations are no images

    @property
    def batch(self) -> int:
        """The steps of all environments (of one seed) that are learned from at once."""
        return self.num_envs * self.unroll_length

    @property
    def first(self) -> int:
        """The environment steps until the first update."""
        return self.seeds * self.batch

    @property
    def updates_per_step(self) -> float:
        """The gradient steps for each environment step."""
        return self.epochs * self.minibatches / self.batch


class Replay(NamedTuple):
    """DQN or SAC, with relu networks: `updates` updates after every `period` steps."""

    hidden: tuple[int, int]
    batch: int
    capacity: int
    num_envs: int = 1
    period: int = 1
    updates: int = 1

    @property
    def first(self) -> int:
        """The environment steps until the first update."""
        return LEARNING_STARTS + 2 * self.period  # some count before the step, some after it

    @property
    def updates_per_step(self) -> float:
        """The gradient steps for each environment step."""
        return self.updates / self.period


class Workload(NamedTuple):
    """What is run: CartPole; Pendulum for SAC; MinAtar's Breakout where there are images."""

    place: Literal["device", "host"]  # of the environments
    algorithm: Literal["ppo", "dqn", "sac"]
    settings: PPO | Replay
    chunk: int  # environment steps of the smallest segment

    @property
    def contestants(self) -> tuple[str, ...]:
        """Who runs it; the first is what the others are compared with."""
        if self.place == "host":
            return ("ours", "sb3", "sbx", *("reference",) * (self.algorithm == "dqn"))
        if isinstance(self.settings, PPO) and self.settings.channels:
            return ("ours", "reference")
        return ("ours", "rejax", *("reference",) * (self.algorithm == "ppo"))


# CleanRL's network and batch. SBX takes the first size for both layers.
HOST_DQN = Replay(hidden=(120, 84), batch=128, capacity=10_000)
HOST_DQN_8 = HOST_DQN._replace(period=8, updates=8)
# The network that SB3, SBX and rejax have by default.
HOST_DQN_64 = HOST_DQN._replace(hidden=(64, 64))
DEVICE_DQN = Replay(hidden=(64, 64), batch=128, capacity=10_000)
# rejax updates after every vector step, so that ten steps an update take ten environments.
DEVICE_DQN_10 = DEVICE_DQN._replace(num_envs=10, period=10)
SAC = Replay(hidden=(256, 256), batch=256, capacity=100_000)

CPU_WORKLOADS = {
    "device_ppo_4": Workload("device", "ppo", PPO(4), 96 * 512),
    "device_ppo_64": Workload("device", "ppo", PPO(64), 8 * 8192),
    "device_ppo_2048": Workload("device", "ppo", PPO(2048), 262_144),
    "device_ppo_4x10": Workload("device", "ppo", PPO(4, seeds=10), 16 * 5120),
    "device_dqn_1": Workload("device", "dqn", DEVICE_DQN, 2000),
    "device_dqn_10": Workload("device", "dqn", DEVICE_DQN_10, 10_000),
    "device_sac": Workload("device", "sac", SAC, 200),
    "host_ppo_4": Workload("host", "ppo", PPO(4), 4 * 512),
    "host_ppo_64": Workload("host", "ppo", PPO(64), 8192),
    "host_dqn_1": Workload("host", "dqn", HOST_DQN, 400),
    "host_dqn_8": Workload("host", "dqn", HOST_DQN_8, 400),
    "host_dqn_64": Workload("host", "dqn", HOST_DQN_64, 400),
    "host_sac": Workload("host", "sac", SAC, 50),
}
# The network is that of Young and Tian, 2019, "MinAtar". Eight environments are for trying it out.
GPU_WORKLOADS = {
    f"device_ppo_minatar_{n}": Workload(
        "device", "ppo", PPO(n, minibatches=8, hidden=(128,), channels=16), 128 * n
    )
    for n in (8, 2048, 4096, 8192, 16384)
}
WORKLOADS = CPU_WORKLOADS | GPU_WORKLOADS
