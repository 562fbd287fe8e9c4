"""Counts that an int32 does not hold: they go round, but not back to where a run begins.

After 2^31 - 2 comes 2^30. So what is done at first is not done again, and what is done every so
often goes on, at most once too early. On a host a count is what it is.
"""

import jax.numpy as jnp

from rlws.types import Array

LAST, AGAIN = 2**31 - 2, 2**30
ROUND = LAST - AGAIN + 1


def following(count: Array | int) -> Array:
    """Returns what comes after a count, int32."""
    return jnp.where(count < LAST, count + 1, AGAIN)


def at_least(count: Array | int, other: Array | int) -> Array:
    """Returns whether a count is that of another number or of one soon after it."""
    beyond = jnp.asarray(count) - other
    return (beyond >= 0) & (beyond < ROUND // 2)


def wrapped(number: int) -> int:
    """Returns the count of a number."""
    return number if number <= LAST else AGAIN + (number - AGAIN) % ROUND


def unwrapped(count: int, before: int) -> int:
    """Returns the first number from `before` on that has this count."""
    return count + max(0, -(-(before - count) // ROUND)) * ROUND
