"""Means over the steps of a batch that are experience."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from rlws.settings import SettingError
from rlws.types import Array, Metrics, Params


def norm(tree: Params) -> Array:
    """Returns the Euclidean norm of all numbers of a tree."""
    # As one vector: on a CPU an operation for each array is slow.
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return jnp.sqrt(jnp.sum(jnp.square(flat)))


def mean(x: Array, weight: Array) -> Array:
    """Returns the mean of x [B, T] over the steps of weight, or [B] over their trajectories.

    Steps are multiplied by their weights, and divided by their number: importance weights must not
    cancel out.
    """
    real = weight > 0
    if x.ndim == 1:
        real, weight = real.any(axis=1), jnp.ones_like(x)
    return jnp.sum(jnp.where(real, weight * x, 0.0)) / jnp.maximum(real.sum(), 1)


def means(metrics: Metrics, real: Array) -> Metrics:
    """Returns the mean of each metric ([B, T] or [B]) where steps, or trajectories, are real."""
    # As rows of one array they cost one reduction; apart, on a CPU, more than a small network.
    names = sorted(metrics, key=lambda name: metrics[name].ndim)
    means = []
    for ndim, where in ((1, real.any(axis=1)), (2, real)):
        rows = [metrics[name].ravel() for name in names if metrics[name].ndim == ndim]
        if rows:
            table = jnp.where(where.ravel()[None], jnp.stack(rows), 0.0)
            means += list(table.sum(axis=1) / jnp.maximum(where.sum(), 1))
    return dict(zip(names, means, strict=True))


def standardise(x: Array, weight: Array, axis_name: str = "batch") -> Array:
    """Returns x [T] with mean 0 and deviation 1 over the steps of the batch that have weight.

    Raises:
      SettingError: the batch has but one step, of which that leaves 0.
    """
    if x.size * jax.lax.axis_size(axis_name) < 2:
        raise SettingError(
            "advantages are standardised over the steps of a batch, which must be 2 or more, got "
            "1: nothing would be learned; take larger batches, or do not normalise advantages"
        )
    real = weight > 0
    total = lambda y: jax.lax.psum(jnp.sum(jnp.where(real, y, 0.0)), axis_name)
    count = jnp.maximum(total(1.0), 1.0)
    centred = x - total(x) / count
    # Once more: what rounding left of equal numbers must not be blown up to deviation 1.
    centred = centred - total(centred) / count
    return centred / (jnp.sqrt(total(centred**2) / count) + 1e-8)


def check(losses: Mapping[str, Array], metrics: Mapping[str, Array], shape: tuple) -> None:
    """Raises a SettingError unless each has an entry for each of [B, T] steps, or each of B."""
    if taken := losses.keys() & metrics.keys():
        raise SettingError(f"a metric must not be called {taken.pop()!r}: that is taken")
    for name, value in {**metrics, **losses}.items():
        if value.shape[1:] not in ((), shape[1:]):
            raise SettingError(
                f"{name} of one trajectory must have shape () or {shape[1:]}, one entry a step, "
                f"got {value.shape[1:]}; squeeze or sum it"
            )
