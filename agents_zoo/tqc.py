"""TQC: SAC whose critics say quantiles, of which the highest count for nothing.

Kuznetsov et al., 2020, "Controlling overestimation bias with truncated mixture of continuous
distributional quantile critics". https://arxiv.org/abs/2005.04269

Minimises what `sac.py` does; targets are the pooled quantiles of all target critics without the
`drop` times `critics` highest (equation 11), and the policy learns from the mean of all quantiles.
Departures from the paper: those of `sac.py`.
"""

from agents_zoo import sac
from rlws.critics import Critic, Quantiles
from rlws.settings import NonNegativeInt, Positive, PositiveInt


class Config(sac.Config):
    """Settings of TQC."""

    critic_learning_rate: Positive = 3e-4
    critic: Critic = Quantiles(25)
    critics: PositiveInt = 5
    drop: NonNegativeInt = 2
