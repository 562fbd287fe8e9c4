"""Backbones: from one observation to features. Any callable will do; these carry settings."""

import math
from typing import Annotated, Literal

import haiku as hk
import jax
import jax.numpy as jnp

from rlws.settings import Range, SettingError, Settings
from rlws.types import Array, Observation

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
}
INITIALIZERS = {
    "orthogonal": hk.initializers.Orthogonal,
    # Glorot and He scale with the layer; `scale` multiplies their standard deviation.
    "glorot": lambda scale: hk.initializers.VarianceScaling(scale**2, "fan_avg", "uniform"),
    "he": lambda scale: hk.initializers.VarianceScaling(scale**2 * 2, "fan_in", "truncated_normal"),
}


class Backbone(Settings):
    """Settings of a backbone; called inside the one `hk.transform` with one observation."""

    def __call__(self, observation: Observation) -> Array:
        """Returns features [n]."""
        raise NotImplementedError


class MLP(Backbone):
    """A multi-layer perceptron over all numbers of the observation, side by side."""

    hidden_sizes: tuple[int, ...] = (64, 64)  # units of each hidden layer
    activation: Literal["tanh", "relu", "gelu", "silu", "elu"] = "tanh"  # after each layer
    initializer: Literal["orthogonal", "glorot", "he"] = "orthogonal"  # of weights; biases: 0
    scale: Annotated[float, Range(0.0, low_open=True)] = math.sqrt(2.0)  # gain of the initialiser

    def __call__(self, observation: Observation) -> Array:
        features = flatten(observation)
        for size in self.hidden_sizes:
            initializer = INITIALIZERS[self.initializer](self.scale)
            features = ACTIVATIONS[self.activation](hk.Linear(size, w_init=initializer)(features))
        return features


def flatten(observation: Observation) -> Array:
    """Returns all leaves of one observation as one float32 vector.

    Raises:
      SettingError: a leaf looks like an image.
    """
    leaves = jax.tree.leaves(observation)
    for leaf in leaves:
        if leaf.ndim > 2:
            raise SettingError(
                f"MLP: an observation may have at most 2 axes, got shape {leaf.shape}; "
                "use a convolutional backbone for images, or your own function"
            )
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in leaves])
