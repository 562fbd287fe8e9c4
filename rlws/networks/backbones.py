"""Backbones: from one observation to features. Any callable will do; these carry settings."""

import math
from typing import Annotated, Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp

from rlws.networks.batch_norm import BatchNorm
from rlws.networks.convolution import Convolution
from rlws.networks.initializers import Orthogonal
from rlws.networks.noise import dropout, linear
from rlws.settings import NonNegative, PositiveInt, Range, SettingError, Settings
from rlws.types import Array, Observation

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
}
INITIALIZERS = {
    "orthogonal": Orthogonal,
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

    hidden_sizes: tuple[PositiveInt, ...] = (64, 64)  # units of each hidden layer
    activation: Literal["tanh", "relu", "gelu", "silu", "elu"] = "tanh"  # after each layer
    initializer: Literal["orthogonal", "glorot", "he"] = "orthogonal"  # of weights; biases: 0
    scale: Annotated[float, Range(0.0, low_open=True)] = math.sqrt(2.0)  # gain of the initialiser
    layer_norm: bool = False  # before each activation
    noise: NonNegative = 0.0  # of weights, at first; 0.5 in Fortunato et al., 2018
    dropout: Annotated[float, Range(0.0, 0.99)] = 0.0  # share of a layer's outputs left out
    batch_norm: BatchNorm | None = None  # of what each layer, and what follows the last, is given

    def __call__(self, observation: Observation) -> Array:
        given = self.batch_norm or (lambda features: features)
        features = given(flatten(observation))
        for size in self.hidden_sizes:
            initializer = INITIALIZERS[self.initializer](self.scale)
            features = dropout(linear(size, initializer, self.noise)(features), self.dropout)
            features = ACTIVATIONS[self.activation](normalised(features, self.layer_norm))
            features = given(features)
        return features


class CNN(Backbone):
    """A small convolutional network over one image [height, width, channels], then an MLP.

    Integers are taken for bytes and divided by 255. Defaults are those of Young and Tian, 2019,
    "MinAtar", but for the activation's initialiser; `nature()` is the one of Mnih et al., 2015.
    """

    channels: tuple[PositiveInt, ...] = (16,)  # of each convolution
    kernels: tuple[PositiveInt, ...] = (3,)  # side of each, in pixels
    strides: tuple[PositiveInt, ...] = (1,)  # of each, in pixels
    mlp: MLP = MLP((128,), "relu")
    layer_norm: bool = False  # over the channels of each pixel, before each activation

    def __call__(self, observation: Observation) -> Array:
        image = _image(observation, "CNN")
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise SettingError(
                "CNN: channels, kernels and strides must be as many as there are convolutions, got "
                f"{self.channels}, {self.kernels} and {self.strides}"
            )
        for settings in zip(self.channels, self.kernels, self.strides, strict=True):
            if min(image.shape[:2]) < settings[1]:
                raise SettingError(
                    f"CNN: kernels must be no larger than what they see, got {settings[1]} for "
                    f"{image.shape[0]} x {image.shape[1]}; lower kernels or strides"
                )
            convolved = Convolution(*settings, _INITIALIZER)(image)
            image = jax.nn.relu(normalised(convolved, self.layer_norm))
        return self.mlp(image.ravel())


def nature() -> CNN:
    """Returns the network of Mnih et al., 2015, "Human-level control through deep reinforcement
    learning", for pictures of 84 x 84."""
    return CNN((32, 64, 64), (8, 4, 3), (4, 2, 1), MLP((512,), "relu"))


class ResNet(Backbone):
    """Convolutions and residual blocks over one image [height, width, channels], then an MLP.

    Espeholt et al., 2018, "IMPALA", figure 3, right; https://arxiv.org/abs/1802.01561. Integers are
    taken for bytes and divided by 255.
    """

    channels: tuple[PositiveInt, ...] = (16, 32, 32)  # of each section, which halves the image
    blocks: Annotated[int, Range(0, 100)] = 2  # residual ones in each section, of two convolutions
    mlp: MLP = MLP((256,), "relu")
    layer_norm: bool = False  # over the channels of each pixel, before each activation

    def __call__(self, observation: Observation) -> Array:
        image = _image(observation, "ResNet")
        active = lambda x: jax.nn.relu(normalised(x, self.layer_norm))
        for channels in self.channels:
            convolve = lambda x, n=channels: Convolution(n, 3, 1, _INITIALIZER)(_padded(x))
            image = hk.max_pool(convolve(image), (3, 3, 1), (2, 2, 1), "SAME")
            for _ in range(self.blocks):
                image = image + convolve(active(convolve(active(image))))
        return self.mlp(active(image).ravel())


_INITIALIZER = Orthogonal(math.sqrt(2.0))


def _padded(image: Array) -> Array:
    """Returns an image in a frame of zeros, a pixel wide."""
    return jnp.pad(image, ((1, 1), (1, 1), (0, 0)))


def _image(observation: Observation, who: str) -> Array:
    if getattr(observation, "ndim", None) != 3:
        raise SettingError(
            f"{who}: an observation must be one image [height, width, channels], got "
            f"{jax.tree.map(jnp.shape, observation)}; use MLP, or your own function"
        )
    image = observation.astype(jnp.float32)
    return image / 255.0 if jnp.issubdtype(observation.dtype, jnp.integer) else image


def normalised(x: Array, whether: bool = True) -> Array:
    """Returns features [..., n] with mean 0 and deviation 1 over n, then scaled and moved by
    parameters: Ba et al., 2016, "Layer normalization"; as they are where not asked for."""
    if not whether:
        return x
    with jax.numpy_rank_promotion("allow"):  # Haiku's scale and offset
        return hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)


class Recurrent(Backbone):
    """Settings of a backbone with memory: an encoder, then a core that carries a state."""

    encoder: Backbone = MLP((64,))
    size: PositiveInt = 64  # units of the core

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.encoder, Recurrent):
            raise SettingError(
                f"{type(self).__name__}.encoder must have no memory of its own, got "
                f"{type(self.encoder).__name__}"
            )

    def __call__(self, observation: Observation) -> Array:
        """Returns what the core is fed for one observation."""
        return self.encoder(observation)

    def initial_state(self) -> Any:
        """Returns the state of the core at the start of an episode."""
        raise NotImplementedError

    def recur(self, features: Array, state: Any) -> tuple[Array, Any]:
        """Returns the core's features [size] and its next state."""
        raise NotImplementedError


class GRU(Recurrent):
    """A gated recurrent unit: Cho et al., 2014, https://arxiv.org/abs/1406.1078."""

    def initial_state(self) -> Array:
        return jnp.zeros(self.size)

    def recur(self, features: Array, state: Array) -> tuple[Array, Array]:
        with jax.numpy_rank_promotion("allow"):  # Haiku's biases
            return hk.GRU(self.size)(features, state)


class LSTM(Recurrent):
    """Long short-term memory: Hochreiter and Schmidhuber, 1997."""

    def initial_state(self) -> hk.LSTMState:
        return hk.LSTMState(jnp.zeros(self.size), jnp.zeros(self.size))

    def recur(self, features: Array, state: hk.LSTMState) -> tuple[Array, hk.LSTMState]:
        with jax.numpy_rank_promotion("allow"):  # Haiku's biases
            return hk.LSTM(self.size)(features, state)


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
