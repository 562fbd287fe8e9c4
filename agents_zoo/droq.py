"""DroQ: REDQ whose many critics are two, made uncertain by dropout and steady by normalisation.

Hiraoka et al., 2022, "Dropout Q-functions for doubly efficient reinforcement learning".
https://arxiv.org/abs/2110.02034

Minimises what `redq.py` does with two critics, of which targets see both, each with units dropped
at random in every layer, and layer normalisation behind that (algorithm 2). Departures from the
paper: those of `redq.py`; each transition of a batch has dropped units of its own, and the policy
learns from critics with theirs.
"""

from agents_zoo import redq
from rlws.networks import MLP, Backbone
from rlws.settings import PositiveInt


class Config(redq.Config):
    """Settings of DroQ."""

    critic_backbone: Backbone | None = MLP((256, 256), "relu", layer_norm=True, dropout=0.01)
    critics: PositiveInt = 2
