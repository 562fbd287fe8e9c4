"""Rainbow: DQN with six improvements at once.

Hessel et al., 2018, "Rainbow: combining improvements in deep reinforcement learning".
https://arxiv.org/abs/1710.02298

Minimises, weighted by importance, the divergence of p(s, a) from the projected target

    r_1 + ... + gamma^(n-1) r_n + gamma^n Z'(s_n, argmax_a mean Z(s_n, a))

in a duelling network of noisy layers, from a replay in which priorities are that divergence
(section "The integrated agent"). Departures from the paper are those of DQN and C51; noise is in
the last layers only, which here are two (value and advantages), and has an epsilon of 0 beside it.
"""

from agents_zoo import c51
from rlws.settings import Fraction, NonNegative, PositiveInt


class Config(c51.Config):
    """Settings of Rainbow."""

    double: bool = True
    duelling: bool = True
    n_step: PositiveInt = 3
    noise: NonNegative = 0.5
    epsilon_start: Fraction = 0.0
    epsilon_end: Fraction = 0.0
    prioritised: bool = True
    priority_exponent: Fraction = 0.5
    beta_steps: PositiveInt | None = 100_000  # environment steps until importance weights are whole
