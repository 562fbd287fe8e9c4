"""Parts of an agent that have names, on a command line and in a sweep."""

from collections.abc import Callable

from rlws.critics import Categorical, Critic, ImplicitQuantiles, Quantiles, Scalar
from rlws.networks import CNN, GRU, LSTM, MLP, Backbone, ResNet, nature

BACKBONES: dict[str, Callable[[], Backbone]] = {
    "mlp": MLP,
    "cnn": CNN,
    "nature": nature,
    "resnet": ResNet,
    "gru": GRU,
    "lstm": LSTM,
}
CRITICS: dict[str, Callable[[], Critic]] = {
    "scalar": Scalar,
    "categorical": Categorical,
    "quantiles": Quantiles,
    "implicit": ImplicitQuantiles,
}
PARTS: dict[str, dict] = {"agent.backbone": BACKBONES, "agent.critic": CRITICS}
