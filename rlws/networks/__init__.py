"""Networks: backbones, heads and the one place where they become pure functions."""

from rlws.networks.backbones import CNN as CNN
from rlws.networks.backbones import GRU as GRU
from rlws.networks.backbones import LSTM as LSTM
from rlws.networks.backbones import MLP as MLP
from rlws.networks.backbones import Backbone as Backbone
from rlws.networks.backbones import Recurrent as Recurrent
from rlws.networks.backbones import ResNet as ResNet
from rlws.networks.backbones import nature as nature
from rlws.networks.compose import Network as Network
from rlws.networks.compose import compose as compose
from rlws.networks.distributions import Categorical as Categorical
from rlws.networks.distributions import Normal as Normal
from rlws.networks.distributions import TanhNormal as TanhNormal
from rlws.networks.ensemble import critics as critics
from rlws.networks.ensemble import ensemble as ensemble
from rlws.networks.heads import ActionReturns as ActionReturns
from rlws.networks.heads import ActionValues as ActionValues
from rlws.networks.heads import CategoricalPolicy as CategoricalPolicy
from rlws.networks.heads import DuellingActionValues as DuellingActionValues
from rlws.networks.heads import NormalPolicy as NormalPolicy
from rlws.networks.heads import TanhNormalPolicy as TanhNormalPolicy
from rlws.networks.heads import TanhPolicy as TanhPolicy
from rlws.networks.heads import Value as Value
from rlws.networks.heads import ValueReturns as ValueReturns
from rlws.networks.heads import policy as policy
from rlws.networks.masks import random_action as random_action
