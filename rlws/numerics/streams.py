"""Named random streams: every draw is a function of the seed, a stream and counters.

No key is ever carried along and split, so a draw does not depend on what else was drawn: runs are
the same whatever the trainer, the logging and the evaluation do, and a run resumes exactly.
"""

import enum
import hashlib

import jax
import jax.numpy as jnp

from rlws.numerics.threefry import THREEFRY, hash_2x32
from rlws.types import Array, Key


class Stream(enum.IntEnum):
    """The independent sources of randomness of a run."""

    INIT = 0  # network parameters
    ACT = 1  # exploration; counters: environment, step
    LEARN = 2  # sampling and losses; counter: update
    ENVIRONMENT = 3  # environments; counters: environment, episode
    EVALUATION = 4  # evaluation: a whole run seed of its own


def key(seed: Array | int, stream: Stream) -> Key:
    """Returns the raw key (uint32 [2]) of `stream` in the run with this `seed`."""
    return jax.random.key_data(jax.random.fold_in(jax.random.key(seed, impl=THREEFRY), stream))


def draw(stream_key: Key, high: Array | int = 0, low: Array | int = 0) -> Key:
    """Returns the typed key of one draw of a stream, counted by two numbers.

    Costs one hash and, unlike keys folded into each other, fuses with what it is used for.
    """
    high, low = (jnp.asarray(counter).astype(jnp.uint32) for counter in (high, low))
    words = hash_2x32((stream_key[0], stream_key[1]), high, low)
    return jax.random.wrap_key_data(jnp.stack(words, axis=-1), impl=THREEFRY)


def host_seed(seed: int, stream: Stream, *counters: int) -> int:
    """Returns the 31-bit seed of a draw made by host code, such as a gymnasium reset."""
    text = repr((int(seed), int(stream), *map(int, counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
