"""R2D2: DQN with memory, from prioritised sequences.

Kapturowski et al., 2019, "Recurrent experience replay in distributed reinforcement learning".
https://openreview.net/forum?id=r1lyTjAqYX

Minimises, over sequences after their burn-in and with h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x,

    mean(w (h(r_1 + ... + gamma^n h^-1(Q'(s_n, argmax_a Q(s_n, a)))) - Q(s, a))^2 / 2)

(section 2.3), where a sequence has the priority 0.9 max |error| + 0.1 mean |error|, on h's scale.
The core starts from the state recorded while acting. Departures from the paper: sequences begin at
any step, not every 40; the core is not fed the last action and reward; epsilon is annealed, not
another in each environment; theirs are 80 steps after 40 of burn-in, and a discount of 0.997.
"""

from agents_zoo import dqn
from rlws.critics import Critic, Scalar
from rlws.networks import LSTM, MLP, Backbone
from rlws.settings import Fraction, NonNegativeInt, PositiveInt


class Config(dqn.Config):
    """Settings of R2D2."""

    backbone: Backbone = LSTM(MLP((64,), "relu"), 64)
    critic: Critic = Scalar(scale="sqrt")
    duelling: bool = True
    n_step: PositiveInt = 5
    sequence_length: PositiveInt = 16
    burn_in: NonNegativeInt = 8
    batch_size: PositiveInt = 32  # sequences
    period: PositiveInt = 4
    prioritised: bool = True
    priority_exponent: Fraction = 0.9
    beta: Fraction = 0.6
