"""Several passes over a batch, in shuffled minibatches."""

from collections.abc import Callable
from typing import Any

import jax

from rlws.numerics.packing import pack
from rlws.numerics.permutation import permutation
from rlws.settings import SettingError
from rlws.types import Array, Key


def sequences(batch: Any, length: int, minibatches: int) -> Any:
    """Returns unrolls, leaves [B, T, ...], cut into sequences, leaves [n, length, ...].

    Raises:
      SettingError: sequences would not end with an unroll, or not fill whole minibatches.
    """
    size, unroll = jax.tree.leaves(batch)[0].shape[:2]
    count = size * unroll // length
    if unroll % length or count % minibatches:
        raise SettingError(
            f"the {size * unroll} steps of a batch must be minibatches={minibatches} of whole "
            f"sequences of {length}, which end with an unroll of {unroll}; change minibatches, "
            "sequence_length, unroll_length or num_envs"
        )
    return jax.tree.map(lambda x: x.reshape(count, length, *x.shape[2:]), batch)


def scan_minibatches(
    step: Callable[[Any, Any, Key], tuple[Any, Any]],
    carry: Any,
    samples: Any,
    key: Key,
    epochs: int,
    minibatches: int,
) -> tuple[Any, Any]:
    """Scans `step(carry, minibatch, key) -> (carry, output)` over minibatches of samples.

    Each sample occurs once in an epoch. What it returns is what `jax.lax.scan` does.

    Args:
      step: its minibatch has leaves [n / minibatches, ...].
      carry: at first.
      samples: leaves [n, ...]; n must be a multiple of `minibatches`.
      key: of the order, and of each step.
      epochs: passes over all samples.
      minibatches: in each.
    """
    packed, count = pack(samples), len(jax.tree.leaves(samples)[0])
    shuffle_key, step_key = jax.random.split(key)
    shuffle = lambda key: permutation(key, count)
    order = jax.vmap(shuffle)(jax.random.split(shuffle_key, epochs))
    order = order.reshape(epochs * minibatches, -1)

    def one(carry, inputs: tuple[Array, Key]):
        index, key = inputs
        return step(carry, packed.take(index), key)

    return jax.lax.scan(one, carry, (order, jax.random.split(step_key, len(order))))
