"""IQN: DQN that learns the quantile of a return at any level, given the level.

Dabney et al., 2018, "Implicit quantile networks for distributional reinforcement learning".
https://arxiv.org/abs/1806.06923

Minimises QR-DQN's loss at levels drawn uniformly for both sides of the error (equation 3); a level
is embedded by cosines, which gate the features (equation 4). Departures from the paper are DQN's;
one number of levels for value, target and acting, theirs are 64, 64 and 32; evaluation takes evenly
spaced levels and draws none. With `critic.kappa` 1 errors count as in the paper.
"""

from agents_zoo import dqn
from rlws.critics import Critic, ImplicitQuantiles


class Config(dqn.Config):
    """Settings of IQN."""

    critic: Critic = ImplicitQuantiles(32)
    double: bool = False
