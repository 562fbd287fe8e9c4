"""Rings of rows on the device."""

import jax
import jax.numpy as jnp

from rlws.types import Array


def write(ring: Array, block: Array, slot: Array, adding: Array) -> Array:
    """Returns the ring [R, ...] with a block [T, ...] from a slot on, if it is to be added.

    It must not wrap around. Otherwise the ring stays what it is, for which a select of a block
    costs little.
    """
    old = jax.lax.dynamic_slice_in_dim(ring, slot, len(block))
    return jax.lax.dynamic_update_slice_in_dim(ring, jnp.where(adding, block, old), slot, 0)
