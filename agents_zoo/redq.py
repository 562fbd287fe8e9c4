"""REDQ: SAC with many critics, of which targets see a few, and many updates a step.

Chen et al., 2021, "Randomized ensembled double Q-learning: learning fast without a model".
https://arxiv.org/abs/2101.05982

Minimises what `sac.py` does; targets are the lowest of a random `subset` of the target critics,
drawn anew with each transition, and the policy learns from the mean of all (algorithm 1).
Departures from the paper: those of `sac.py`; the subset is drawn for each transition and not for a
batch, and the policy is improved with every update of the critics, not with the last of a turn.
"""

from agents_zoo import sac
from rlws.settings import Positive, PositiveInt


class Config(sac.Config):
    """Settings of REDQ."""

    critic_learning_rate: Positive = 3e-4
    critics: PositiveInt = 10
    subset: PositiveInt | None = 2
    updates: PositiveInt = 20
