"""Arrays on several devices: split along the axis of environments, or whole on each."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def over_devices(
    count: int,
) -> tuple[Callable[[Any, int], Any], Callable[[Any], Any]]:
    """Returns functions that split a tree along an axis, and that put it whole, on `count` devices.

    XLA's partitioner does the rest from where the arrays lie. With one device nothing moves.
    """
    if count == 1:
        return lambda tree, axis: tree, lambda tree: tree
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("environments",))

    def place(tree, *axes):
        spec = jax.sharding.PartitionSpec(*axes)
        return jax.device_put(tree, jax.sharding.NamedSharding(mesh, spec))

    return lambda tree, axis: place(tree, *(None,) * axis, "environments"), place
