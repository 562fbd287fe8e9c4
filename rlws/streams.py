"""Named random streams: every draw is a function of the seed, a stream and counters.

No key is ever carried along and split, so a draw does not depend on what else was drawn: runs are
the same whatever the trainer, the logging and the evaluation do, and a run resumes exactly.
"""

import enum
import hashlib

import jax

from rlws.threefry import THREEFRY
from rlws.types import Key


class Stream(enum.IntEnum):
    """The independent sources of randomness of a run."""

    INIT = 0  # network parameters
    ACT = 1  # exploration; counters: step, environment
    LEARN = 2  # sampling and losses; counter: update
    ENVIRONMENT = 3  # environments; counters: environment, episode
    EVALUATION = 4  # evaluation: a whole run seed of its own


def key(seed: int, stream: Stream) -> Key:
    """Returns the raw key (uint32 [2]) of `stream` in the run with this `seed`."""
    return jax.random.key_data(jax.random.fold_in(jax.random.key(seed, impl=THREEFRY), stream))


def draw(stream_key: Key, *counters: jax.Array | int) -> Key:
    """Returns the typed key of one draw: the stream's key folded with the counters in order."""
    folded = jax.random.wrap_key_data(stream_key, impl=THREEFRY)
    for counter in counters:
        folded = jax.random.fold_in(folded, counter)
    return folded


def host_seed(seed: int, stream: Stream, *counters: int) -> int:
    """Returns the 31-bit seed of a draw made by host code, such as a gymnasium reset."""
    text = repr((int(seed), int(stream), *map(int, counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1
