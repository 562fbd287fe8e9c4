"""Layers that draw, where the network is given a key; without one they are their means."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from rlws.types import Array


class NoisyLinear(hk.Module):
    """A linear layer whose weights are normal, their deviations learned; factorised noise.

    Fortunato et al., 2018, "Noisy networks for exploration", equations 9 to 11.
    https://arxiv.org/abs/1706.10295

    Each observation of a batch has a draw of its own, which factorised noise makes cheap.
    """

    def __init__(self, size: int, w_init: Any, noise: float, name: str | None = None):
        super().__init__(name)
        self.size, self.w_init, self.noise = size, w_init, noise

    def __call__(self, x: Array) -> Array:
        count = x.shape[-1]
        mean = hk.Linear(self.size, w_init=self.w_init)
        constant = hk.initializers.Constant(self.noise / count**0.5)
        w = hk.get_parameter("w_deviation", (count, self.size), init=constant)
        b = hk.get_parameter("b_deviation", (self.size,), init=constant)
        key = hk.maybe_next_rng_key()
        if key is None:
            return mean(x)
        normal = jax.random.normal(key, (count + self.size,))
        drawn = jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))
        of_inputs, of_outputs = drawn[:count], drawn[count:]
        with jax.numpy_rank_promotion("allow"):  # `x` may have axes before that of features
            return mean(x) + of_outputs * ((of_inputs * x) @ w + b)


def linear(size: int, w_init: Any, noise: float) -> Callable[[Array], Array]:
    """Returns a linear layer; a noisy one, if there is to be noise."""
    return NoisyLinear(size, w_init, noise) if noise else hk.Linear(size, w_init=w_init)


def dropout(x: Array, rate: float) -> Array:
    """Returns features without a random share `rate` of them, the others grown accordingly.

    Srivastava et al., 2014, "Dropout".
    """
    if not rate or (key := hk.maybe_next_rng_key()) is None:
        return x
    return hk.dropout(key, rate, x)
