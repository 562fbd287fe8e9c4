"""DDPG: TD3 without what TD3 added.

Lillicrap et al., 2016, "Continuous control with deep reinforcement learning".
https://arxiv.org/abs/1509.02971

One critic, no smoothing of targets, the policy improved with every update of the critic. Departure
from the paper: independent normal noise explores, not an Ornstein-Uhlenbeck process.
"""

from agents_zoo import td3
from rlws.settings import NonNegative, PositiveInt


class Config(td3.Config):
    """Settings of DDPG."""

    target_noise: NonNegative = 0.0
    policy_period: PositiveInt = 1
    critics: PositiveInt = 1
