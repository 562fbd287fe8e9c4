"""Networks: backbones, heads and the one place where they become pure functions."""

from rlws.networks.backbones import CNN, GRU, LSTM, MLP, Backbone, Recurrent
from rlws.networks.compose import Network, compose
from rlws.networks.distributions import Categorical, Normal, TanhNormal
from rlws.networks.ensemble import critics, ensemble
from rlws.networks.heads import (
    ActionValues,
    CategoricalPolicy,
    DuellingActionValues,
    NormalPolicy,
    TanhNormalPolicy,
    TanhPolicy,
    Value,
    policy,
)
from rlws.networks.masks import random_action

__all__ = [
    "CNN",
    "GRU",
    "LSTM",
    "MLP",
    "ActionValues",
    "Backbone",
    "Categorical",
    "CategoricalPolicy",
    "DuellingActionValues",
    "Network",
    "Normal",
    "NormalPolicy",
    "Recurrent",
    "TanhNormal",
    "TanhNormalPolicy",
    "TanhPolicy",
    "Value",
    "compose",
    "critics",
    "ensemble",
    "policy",
    "random_action",
]
