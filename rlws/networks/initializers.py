"""Initial weights."""

import math
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from rlws.types import Array


class Orthogonal(NamedTuple):
    """Weights whose shorter side is orthogonal, with gain `scale`; uniform among all such.

    Saxe et al., 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks". By Gram and Schmidt instead of LAPACK: a batch of LAPACK's factorisations, as many
    seeds in one program need, can deadlock XLA's pool of threads on a CPU of few cores, and it
    takes SciPy's import to call it at all.
    """

    scale: float = 1.0

    def __call__(self, shape: tuple[int, ...], dtype) -> Array:
        columns = shape[-1]
        rows = math.prod(shape) // columns
        size = max(rows, columns), min(rows, columns)
        normal = jax.random.normal(hk.next_rng_key(), size, dtype)
        weights = orthonormal(normal)
        weights = weights if rows >= columns else weights.T
        return self.scale * weights.reshape(shape)


def orthonormal(x: Array) -> Array:
    """Returns an orthonormal basis of the space of the columns of x, [m, n] with m >= n."""

    def add(i, basis):
        column = x[:, i]
        # Twice is enough (Giraud et al., 2005): once leaves an error of the condition number.
        for _ in range(2):
            column = column - basis @ (basis.T @ column)
        return basis.at[:, i].set(column / jnp.linalg.norm(column))

    return jax.lax.fori_loop(0, x.shape[1], add, jnp.zeros_like(x))
