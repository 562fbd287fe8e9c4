"""JAX's default random numbers from straight-line code, which XLA fuses into their surroundings.

On a CPU, JAX lowers its Threefry generator to a loop. That is quick to compile, but a loop is a
barrier to fusion and, beside a small network, a branch XLA hands to another thread: drawing one
action then costs several times the network. Unrolled, the same numbers come almost for free.

Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

from rlws.types import Array

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)


def hash_2x32(key: tuple[Array, Array], high: Array, low: Array) -> tuple[Array, Array]:
    """Returns Threefry-2x32 with 20 rounds of the counter words, uint32 of any one shape."""
    words = (*key, key[0] ^ key[1] ^ PARITY)
    x, y = high + words[0], low + words[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation)))
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def _count(key: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    size = math.prod(shape)
    if size >= 2**32:
        raise ValueError(f"at most 2**32 - 1 random numbers can be drawn at once, got {size}")
    low = jax.lax.iota(np.uint32, size).reshape(shape)
    return hash_2x32((key[0], key[1]), jnp.zeros_like(low), low)


def _seed(seed: Array) -> Array:
    return jnp.stack([jnp.uint32(0), jnp.asarray(seed).astype(np.uint32)])


# XLA would compute a key anew for each use of its words: without a barrier, the code for a chain of
# keys derived from each other grows exponentially.
def _split(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.lax.optimization_barrier(jnp.stack(_count(key, shape), axis=-1))


def _fold_in(key: Array, data: Array | int) -> Array:
    data = jnp.asarray(data).astype(np.uint32)
    words = hash_2x32((key[0], key[1]), jnp.zeros_like(data), data)
    return jax.lax.optimization_barrier(jnp.stack(words))


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    high, low = _count(key, shape)
    if bit_width == 64:
        return (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    return (high ^ low).astype(f"uint{bit_width}")


THREEFRY = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_unrolled",
    tag="tfu",
)
