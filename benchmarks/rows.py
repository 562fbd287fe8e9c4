"""The rows of the learning benchmark: what is learned, and how well others learn it."""

from typing import NamedTuple

from agents_zoo import a2c, dqn, ppo, reinforce, sac
from benchmarks import truncation
from rlws.agent import AgentConfig
from rlws.trainers import DeviceTrainer, HostTrainer, Trainer


class Row(NamedTuple):
    """One agent in one environment, against published results."""

    agent: AgentConfig
    environment: str
    steps: int
    references: dict[str, tuple[str, float]]  # by name: which score (T or E), and how much
    random: float  # T of random actions
    source: str
    trainer: Trainer
    episodes: int = 100  # of the evaluation


PPO = ppo.Config(anneal_steps=500_000)
# As many steps a batch as of four environments: 16 x 128 = 4 x 512.
MUJOCO_PPO = ppo.Config(unroll_length=128, anneal_steps=1_000_000)
MUJOCO = HostTrainer(num_envs=16, vectorization="envpool")

ROWS = {
    "1": Row(
        reinforce.Config(),
        "jax:CartPole-v1",
        200_000,
        {"match": ("T", 483.0), "stretch": ("T", 497.0)},
        22.2,
        "SLM-Lab, BENCHMARKS.md: REINFORCE and A2C at this budget, 4 sessions",
        DeviceTrainer(),
    ),
    "2": Row(
        a2c.Config(),
        "gymnax:Acrobot-v1",
        300_000,
        {"match": ("T", -84.0), "stretch": ("T", -81.3)},
        -500.0,
        "SLM-Lab, BENCHMARKS.md: A2C and PPO, 4 sessions",
        DeviceTrainer(num_envs=8),
    ),
    "3": Row(
        PPO,
        "jax:CartPole-v1",
        500_000,
        {"match": ("T", 490.0), "stretch": ("T", 497.5)},
        22.2,
        "CleanRL's documentation and openai-baselines, 3 seeds",
        DeviceTrainer(num_envs=4),
    ),
    "4": Row(
        PPO,
        "gymnax:Pendulum-v1",
        100_000,
        {"match": ("E", -172.0), "stretch": ("E", -157.0)},
        -1220.0,
        "rl-baselines3-zoo, tuned: PPO and SAC, one run each",
        DeviceTrainer(num_envs=4),
        1000,
    ),
    "4-truncation": Row(  # what row 4 would be if time limits were ends
        truncation.Config(anneal_steps=PPO.anneal_steps),
        "gymnax:Pendulum-v1",
        100_000,
        {"match": ("E", -172.0), "stretch": ("E", -157.0)},
        -1220.0,
        "as row 4",
        DeviceTrainer(num_envs=4),
        1000,
    ),
    "5": Row(
        MUJOCO_PPO,
        "gym:HalfCheetah-v5",
        1_000_000,
        {"match": ("T", 1443.0), "stretch": ("E", 5784.0)},
        -242.0,
        "CleanRL's documentation, 3 seeds; Tianshou's table, 10 seeds, the best of training",
        MUJOCO,
    ),
    "5-hopper": Row(
        MUJOCO_PPO,
        "gym:Hopper-v5",
        1_000_000,
        {"match": ("T", 2383.0)},
        18.5,
        "CleanRL's documentation, Hopper-v4, 3 seeds",
        MUJOCO,
    ),
    "5-walker": Row(
        MUJOCO_PPO,
        "gym:Walker2d-v5",
        1_000_000,
        {"match": ("T", 2288.0)},
        2.1,
        "CleanRL's documentation, Walker2d-v4, 3 seeds",
        MUJOCO,
    ),
    "7": Row(
        dqn.Config(learning_rate=1e-4, n_step=3, period=10, epsilon_steps=100_000),
        "jax:CartPole-v1",
        500_000,
        {"match": ("T", 498.4)},
        22.2,
        "CleanRL's documentation: dqn_jax, 3 seeds",
        DeviceTrainer(),
    ),
    "7-soon": Row(
        dqn.Config(n_step=10),
        "jax:CartPole-v1",
        50_000,
        {"match": ("E", 500.0)},
        22.2,
        "rl-baselines3-zoo, tuned: DQN, one run",
        DeviceTrainer(),
    ),
    "8": Row(
        dqn.Config(learning_rate=5e-4, n_step=3, period=4, updates=2, prioritised=True),
        "gym:LunarLander-v3",
        300_000,
        {"match": ("T", 195.0), "stretch": ("T", 266.0)},
        -180.0,
        "SLM-Lab, BENCHMARKS.md: DQN, and double DQN with priorities, 4 sessions",
        HostTrainer(),
    ),
    "9": Row(
        sac.Config(),
        "gymnax:Pendulum-v1",
        20_000,
        {"match": ("E", -157.0), "stretch": ("E", -151.0)},
        -1220.0,
        "rl-baselines3-zoo: SAC and TQC, one run each",
        DeviceTrainer(),
        1000,
    ),
}
