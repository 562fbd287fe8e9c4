"""Running mean and variance of what comes in batches."""

from typing import NamedTuple

import jax.numpy as jnp

from rlws.types import Array

MOST = 2.0**23


class Moments(NamedTuple):
    """Running mean and variance. The mean has a low part, or float32 would lose the variance."""

    number: Array  # of those so far, at most `MOST`
    mean: Array
    mean_low: Array
    squares: Array  # sum of squared deviations from the mean

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Moments":
        """Returns the moments of nothing yet, for arrays of this shape."""
        zeros = jnp.zeros(shape, jnp.float32)
        return cls(jnp.float32(0), zeros, zeros, zeros)

    def update(self, x: Array, weight: Array) -> "Moments":
        """Returns the moments with x [n, ...] added where weight [n] is positive.

        Chan, Golub and LeVeque, 1979, "Updating formulae and a pairwise algorithm for computing
        sample variances".
        """
        real = (weight > 0).reshape(weight.shape + (1,) * (x.ndim - 1))
        count = real.sum().astype(jnp.float32)
        first = x[jnp.argmax(weight > 0)]
        begun = self.number > 0
        high, low = jnp.where(begun, self.mean, first), jnp.where(begun, self.mean_low, 0.0)
        sum_ = lambda y: jnp.sum(jnp.where(real, y, 0.0), axis=0)
        deviation = (x - high[None]) - low[None]
        shift = sum_(deviation) / jnp.maximum(count, 1.0)
        squares = sum_((deviation - shift[None]) ** 2)
        total = jnp.maximum(self.number + count, 1.0)
        step = shift * (count / total)
        mean = high + step
        lost = (high - (mean - (mean - high))) + (step - (mean - high))
        squares = self.squares + squares + shift**2 * (self.number * count / total)
        # What a float32 cannot count is forgotten, slowly.
        kept = jnp.minimum(1.0, MOST / total)
        return Moments((self.number + count) * kept, mean, low + lost, squares * kept)

    def deviation(self) -> Array:
        """Returns the standard deviation, 1 where there is no variance yet."""
        variance = self.squares / jnp.maximum(self.number, 1.0)
        return jnp.where((self.number > 1) & (variance > 1e-12), jnp.sqrt(variance), 1.0)
