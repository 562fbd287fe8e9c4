"""C51: DQN that learns the distribution of returns on fixed atoms.

Bellemare, Dabney and Munos, 2017, "A distributional perspective on reinforcement learning".
https://arxiv.org/abs/1707.06887

Minimises, with the target's distribution of r + gamma Z'(s', a*) projected to the atoms (equation
7) as m, the cross-entropy -sum_i m_i log p_i(s, a) (algorithm 1), where a* is of highest mean.
Departures from the paper are DQN's, and the atoms: theirs are 51 from -10 to 10, for rewards that
are clipped to [-1, 1]; ours reach as far as returns of CartPole. What lies beyond is cut off.
"""

from agents_zoo import dqn
from rlws.critics import Categorical, Critic


class Config(dqn.Config):
    """Settings of C51."""

    critic: Critic = Categorical(101, -100.0, 100.0)
    double: bool = False
