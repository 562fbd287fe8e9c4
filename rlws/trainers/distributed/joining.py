"""Blocks of several workers as one."""

from typing import NamedTuple

import dm_env
import jax
import numpy as np

from rlws.types import Row

LAST = int(dm_env.StepType.LAST)


class Joined(NamedTuple):
    """Blocks side by side."""

    rows: Row  # leaves [T, B, ...]
    length: int
    timestep: dm_env.TimeStep  # that follows, leaves [B, ...]
    done: np.ndarray  # [length] steps of environments, up to and including each row
    ended: np.ndarray  # [n, 3 + k]: row, return, length and info of each episode that ended


def join(blocks) -> Joined:
    """Returns blocks, all of one length, side by side."""
    side_by_side = lambda axis: lambda *x: x[0] if len(x) == 1 else np.concatenate(x, axis)
    rows = jax.tree.map(side_by_side(1), *(block.rows for block in blocks))
    timestep = jax.tree.map(side_by_side(0), *(block.timestep for block in blocks))
    length = blocks[0].length
    step_type = rows.timestep.step_type[:length]
    done = np.cumsum((step_type != LAST).sum(axis=1))
    ended = np.concatenate([_ends_of(block) for block in blocks])
    ended = ended[np.argsort(ended[:, 0], kind="stable")]
    return Joined(rows, length, timestep, done, ended)


def _ends_of(block) -> np.ndarray:
    """Returns row, return, length and info of the episodes that ended in a block, [n, 3 + k]."""
    step_type = block.rows.timestep.step_type[1 : block.length]
    after = np.concatenate([step_type, np.asarray(block.timestep.step_type)[None]])
    return np.column_stack([np.argwhere(after == LAST)[:, 0], block.ended])
