"""Networks: backbones, heads and the one place where they become pure functions."""

from rlws.networks.backbones import MLP, Backbone
from rlws.networks.compose import Network, compose
from rlws.networks.distributions import Categorical
from rlws.networks.heads import CategoricalPolicy, Value

__all__ = ["MLP", "Backbone", "Categorical", "CategoricalPolicy", "Network", "Value", "compose"]
