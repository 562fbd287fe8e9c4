"""Actions as an environment wants them."""

from typing import Any

import jax
import numpy as np
from dm_env import specs


def clip_actions(spec: Any, action: Any, xp: Any = np) -> Any:
    """Returns the action with its real numbers clipped to the bounds of the spec.

    Whoever runs an environment does this, so that an actor's distribution need not end at the
    bounds: the learner sees the action as it was drawn, with the probability it was drawn with.

    Args:
      spec: the action spec, maybe nested.
      action: leaves [..., *spec.shape].
      xp: numpy or jax.numpy.
    """
    if not bounded(spec):
        return action
    return jax.tree.map(lambda s, x: _clip(s, x, xp), spec, action)


def legal(spec: Any) -> Any:
    """Returns an action that an environment must take: zero, or what is nearest to it."""
    zero = lambda s: np.zeros(s.shape, s.dtype)
    clip = lambda s: np.clip(zero(s), s.minimum, s.maximum).astype(s.dtype)
    return jax.tree.map(lambda s: (clip if hasattr(s, "minimum") else zero)(s)[()], spec)


def bounded(spec: Any) -> bool:
    """Returns whether any action of the spec is a real number with bounds."""
    return any(map(_bounded, jax.tree.leaves(spec)))


def _bounded(spec: specs.Array) -> bool:
    return isinstance(spec, specs.BoundedArray) and np.issubdtype(spec.dtype, np.floating)


def _clip(spec: specs.Array, x: Any, xp: Any) -> Any:
    if not _bounded(spec):
        return x
    low, high = (np.broadcast_to(bound, x.shape) for bound in (spec.minimum, spec.maximum))
    return xp.clip(x, low, high)
