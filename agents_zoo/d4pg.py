"""D4PG: TD3's predecessor with a distribution of returns and targets of several steps.

Barth-Maron et al., 2018, "Distributed distributional deterministic policy gradients".
https://arxiv.org/abs/1804.08617

Minimises what `td3.py` does with one critic that says a histogram Z(s, a): the cross-entropy of

    sum_k gamma^k r_k + gamma^n Z'(s_n, mu'(s_n))

projected to its atoms; the policy ascends the mean of Z. Departures from the paper:
one actor unless a trainer has more, uniform replay, targets that move a little with each update
instead of copies, independent normal noise. The atoms must span the returns there are: `critic`.
"""

from agents_zoo import td3
from rlws.critics import Categorical, Critic
from rlws.settings import NonNegative, PositiveInt


class Config(td3.Config):
    """Settings of D4PG."""

    critic: Critic = Categorical(51, -150.0, 150.0)
    target_noise: NonNegative = 0.0
    policy_period: PositiveInt = 1
    critics: PositiveInt = 1
    n_step: PositiveInt = 5
