"""Munchausen DQN: soft DQN that adds the log-probability of what it did to what it got.

Vieillard, Pietquin and Geist, 2020, "Munchausen reinforcement learning".
https://arxiv.org/abs/2007.14430

Minimises DQN's loss of the target (equation 2), with pi' = softmax(Q' / tau) of the target network,

    r + alpha [tau log pi'(a | s)]_-1^0
      + gamma sum_a' pi'(a' | s') (Q'(s', a') - tau log pi'(a' | s'))

Departures from the paper are DQN's: alpha is `munchausen`, tau `temperature`, both theirs.
"""

from agents_zoo import dqn
from rlws.settings import Fraction, NonNegative


class Config(dqn.Config):
    """Settings of Munchausen DQN."""

    temperature: NonNegative = 0.03
    munchausen: Fraction = 0.9
    double: bool = False
