"""A sum tree: draws of n items in proportion to their priorities, in O(log n).

Each node has 64 children instead of 2, which are summed anew whenever one changes: a few vector
operations a level instead of six times as many levels, and no rounding error that builds up.
"""

import jax.numpy as jnp

from rlws.types import Array

WIDTH = 64  # children of a node
NOWHERE = 2**30  # an index no item has, on any level

Tree = tuple[Array, ...]  # sums of ever larger groups; the first level holds the priorities


def init(size: int) -> Tree:
    """Returns the tree of `size` items of priority 0."""
    levels = list[Array]()
    while not levels or len(levels[-1]) > WIDTH:
        size = -(-size // WIDTH)
        levels.append(jnp.zeros(size * WIDTH))
    return tuple(levels)


def write(tree: Tree, index: Array, priority: Array) -> Tree:
    """Returns the tree with the priorities [k] of items `index` [k] replaced.

    Those at `NOWHERE` are left out; of an item that occurs twice, some occurrence counts.
    """
    levels = [tree[0].at[index].set(priority, mode="drop")]
    for level in tree[1:]:
        index = index // WIDTH
        sums = levels[-1].reshape(-1, WIDTH).at[index].get(mode="clip").sum(axis=1)
        levels.append(level.at[index].set(sums, mode="drop"))
    return tuple(levels)


def total(tree: Tree) -> Array:
    """Returns the sum of all priorities."""
    return tree[-1].sum()


def find(tree: Tree, share: Array) -> tuple[Array, Array]:
    """Returns the items [k] at which the sum over items passes `share` [k], and their priorities.

    Shares are in [0, total); items of priority 0 are never found.
    """
    index = jnp.zeros(share.shape, jnp.int32)
    for level in reversed(tree):
        children = level.reshape(-1, WIDTH)[index]
        sums = jnp.cumsum(children, axis=1)
        # The last that has any, where rounding puts `share` beyond all.
        largest = WIDTH - 1 - jnp.argmax(children[:, ::-1] > 0, axis=1)
        child = jnp.minimum(jnp.sum(sums <= share[:, None], axis=1), largest)
        found = _pick(children, child)
        share = share - (_pick(sums, child) - found)
        index = index * WIDTH + child
    return index, found


def _pick(x: Array, child: Array) -> Array:
    return jnp.take_along_axis(x, child[:, None], axis=1)[:, 0]
