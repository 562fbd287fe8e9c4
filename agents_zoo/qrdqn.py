"""QR-DQN: DQN that learns quantiles of returns.

Dabney et al., 2018, "Distributional reinforcement learning with quantile regression".
https://arxiv.org/abs/1710.10044

Minimises, for the quantiles theta_i(s, a) at levels tau_i = (2 i - 1) / 2 N and the target's
theta'_j(s', a*), the quantile Huber loss (equation 10)

    sum_i mean_j |tau_i - 1[u_ij < 0]| huber(u_ij),   u_ij = r + gamma theta'_j - theta_i

where a* is of highest mean. Departures from the paper are DQN's, and 51 quantiles for its 200.
"""

from agents_zoo import dqn
from rlws.critics import Critic, Quantiles


class Config(dqn.Config):
    """Settings of QR-DQN."""

    critic: Critic = Quantiles(51)
    double: bool = False
