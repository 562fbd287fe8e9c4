"""Many arrays as one of each type, so that picking rows of all is one gather.

On a CPU a gather costs some microseconds however little it picks, and a batch has a dozen arrays.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlws.types import Array


class Packed(NamedTuple):
    """Rows of a nest of arrays."""

    arrays: dict[str, Array]  # by type, [n, numbers of that type in a row]
    shapes: Any  # of the nest's leaves, as `jax.ShapeDtypeStruct`

    def take(self, index: Array) -> Any:
        """Returns the nest with rows `index` only."""
        picked = {dtype: x[index] for dtype, x in self.arrays.items()}
        used = dict.fromkeys(picked, 0)

        def leaf(shape):
            name, size = str(shape.dtype), math.prod(shape.shape[1:])
            begin, used[name] = used[name], used[name] + size
            flat = picked[name][:, begin : begin + size]
            return flat.reshape(len(index), *shape.shape[1:])

        return jax.tree.map(leaf, self.shapes)


def pack(nest: Any) -> Packed:
    """Returns the nest, whose leaves are [n, ...], packed."""
    rows: dict[str, list[Array]] = {}
    for x in jax.tree.leaves(nest):
        rows.setdefault(str(x.dtype), []).append(x.reshape(len(x), -1))
    arrays = {dtype: jnp.concatenate(parts, axis=1) for dtype, parts in rows.items()}
    return Packed(arrays, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), nest))
