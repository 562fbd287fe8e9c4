"""Random permutations without sorting.

`jax.random.permutation` sorts random numbers, which on a CPU takes longer than a small network's
forward pass over what is permuted. Here a keyed bijection of the numbers below a power of 4 is
evaluated for all of them at once, and applied again to what lands beyond n.

Luby and Rackoff, 1988, "How to construct pseudorandom permutations from pseudorandom functions";
Black and Rogaway, 2002, "Ciphers with arbitrary finite domains" (cycle walking).
"""

import jax
import jax.numpy as jnp

from rlws.types import Array, Key

ROUNDS = 8  # of the Feistel network


def permutation(key: Key, n: int) -> Array:
    """Returns the numbers below n in random order, int32 [n].

    Good enough to shuffle a batch: every place is equally likely for every number, and pairs of
    places are nearly independent. Not all n! orders can occur.
    """
    half = max(1, -(-(n - 1).bit_length() // 2))
    mask = jnp.uint32((1 << half) - 1)
    keys = jax.random.bits(key, (ROUNDS,), jnp.uint32)

    def bijection(x):
        left, right = x >> half, x & mask
        for i in range(ROUNDS):
            left, right = right, left ^ (_mix(right + keys[i]) & mask)
        return (left << half) | right

    x = bijection(jnp.arange(n, dtype=jnp.uint32))
    if n < 1 << 2 * half:
        walk = lambda x: jnp.where(x >= n, bijection(x), x)
        x = jax.lax.while_loop(lambda x: (x >= n).any(), walk, x)
    return x.astype(jnp.int32)


def _mix(x: Array) -> Array:
    # The finaliser of MurmurHash3: every bit of x changes half of the result's.
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
