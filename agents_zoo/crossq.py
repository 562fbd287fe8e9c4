"""CrossQ: SAC with batch normalisation and without target networks.

Bhatt et al., 2024, "CrossQ: batch normalization in deep reinforcement learning for
greater sample efficiency and simplicity". https://arxiv.org/abs/1902.05605

Minimises what `sac.py` does, where what follows is valued by the critics that learn, Q' = Q: they
see (s, a) and (s', a') as one batch, normalised alike. Policies and critics are normalised before
each layer, critics are wide, and policy and temperature learn with every third update. Departures
from the paper: those of `sac.py`, so that in an update the policy learns from critics as they were
before it; what follows a termination, whose value counts for nothing, counts for no statistics.
"""

from agents_zoo import sac
from rlws.networks import MLP, Backbone, BatchNorm
from rlws.settings import Fraction, Positive, PositiveInt


class Config(sac.Config):
    """Settings of CrossQ."""

    backbone: Backbone = MLP((256, 256), "relu", batch_norm=BatchNorm())  # of the policy
    critic_backbone: Backbone | None = MLP((2048, 2048), "relu", batch_norm=BatchNorm())
    learning_rate: Positive = 1e-3  # of policy and temperature
    critic_learning_rate: Positive = 1e-3
    target_rate: Fraction | None = None
    policy_period: PositiveInt = 3
    momentum: Fraction = 0.5
