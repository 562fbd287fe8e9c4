"""What the steps of a run must be, on the side of the policy and of the environment.

Written once for NumPy and for JAX: a host looks at blocks of rows, a device within its program.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
import tree
from dm_env import specs

FIRST, LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)


class Rule(NamedTuple):
    """What numbers must be, and where they are not."""

    name: str  # of the numbers, such as "observation['position']"
    must: str
    x: Any  # the numbers, [T, B, ...]
    broken: Any  # bool, of the same shape
    whose: str = "environment"  # or "policy"


def rules(
    spec: Any, action: Any, step_type: Any, after: dm_env.TimeStep, xp: Any = np
) -> list[Rule]:
    """Returns the rules for steps [T, B]; of a step, the earlier rule is the cause of the later.

    Args:
      spec: of an action, maybe nested.
      action: what the policy chose, leaves [T, B, ...].
      step_type: of the timesteps in which it did, [T, B].
      after: the timesteps that this led to, leaves [T, B, ...].
      xp: numpy or jax.numpy.
    """
    restarted, ended = after.step_type == FIRST, step_type == LAST
    broken = (restarted != ended) | (after.step_type < 0) | (after.step_type > LAST)
    must = "FIRST (0) after a LAST (2) and only there, else MID (1) or LAST"
    order = Rule("step_type", must, after.step_type, broken)
    return [*of_actions(spec, action, xp), order, *of_timesteps(after, xp)]


def of_actions(spec: Any, action: Any, xp: Any = np) -> list[Rule]:
    """Returns the rules for actions, leaves [T, B, ...]; beyond bounds, real ones are clipped."""
    found = []
    leaves = zip(jax.tree.leaves_with_path(spec), jax.tree.leaves(action), strict=True)
    for (path, leaf), x in leaves:
        name = f"action{jax.tree_util.keystr(path)}"
        bounded = isinstance(leaf, specs.BoundedArray)
        if _floating(x):
            broken = xp.isnan(x) if bounded else ~xp.isfinite(x)
            found.append(Rule(name, "finite", x, broken, "policy"))
        elif bounded and x.dtype != bool:
            low, high = leaf.minimum, leaf.maximum
            must = f"within [{low}, {high}]"
            found.append(Rule(name, must, x, (x < low) | (x > high), "policy"))
    return found


def of_timesteps(timestep: dm_env.TimeStep, xp: Any = np) -> list[Rule]:
    """Returns the rules for the numbers in timesteps, leaves [T, B, ...]."""
    discount = timestep.discount
    within = (discount >= 0) & (discount <= 1)
    leaves = jax.tree.leaves_with_path(timestep.observation)
    named = [("reward", timestep.reward)]
    named += [(f"observation{jax.tree_util.keystr(path)}", x) for path, x in leaves]
    finite = [Rule(name, "finite", x, ~xp.isfinite(x)) for name, x in named if _floating(x)]
    return [Rule("discount", "within [0, 1]", discount, ~within), *finite]


def _floating(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, np.floating)  # which knows bfloat16, too


def unlike(spec: Any, nest: Any, axes: int = 0) -> str | None:
    """Returns where a nest is not as its spec says, and how: "['x'] must be ..., got ...".

    Traced, only what is known then is looked at: structure, shapes and types.

    Args:
      spec: of its leaves.
      nest: arrays, with `axes` more axes in front.
    """
    if jax.tree.structure(spec) != jax.tree.structure(nest):
        return f" must be {_keys(spec)}, as the spec says, got {_keys(nest)}"
    # JAX's leaves, as its structure: dm-tree takes other nodes, and None, for leaves.
    for i, (leaf, x) in enumerate(zip(jax.tree.leaves(spec), jax.tree.leaves(nest), strict=True)):
        wrong = _unlike(leaf, x, axes)
        if wrong:
            path, _ = jax.tree.leaves_with_path(spec)[i]  # slow, and seldom needed
            return jax.tree_util.keystr(path) + wrong
    return None


def _unlike(spec: specs.Array, x: Any, axes: int) -> str | None:
    shape = x.shape[axes:]
    if shape != spec.shape or not np.can_cast(x.dtype, spec.dtype, "same_kind"):
        wanted = f"{spec.dtype}{list(spec.shape)}"
        return f" must be {wanted}, as the spec says, got {x.dtype}{list(shape)}"
    if isinstance(x, np.ndarray) and x.dtype.kind in "iu":
        held = jax.dtypes.canonicalize_dtype(spec.dtype)
        if not np.array_equal(x.astype(held), x):
            return f" must fit into {held}, got {x}"
    return None


def _keys(nest: Any) -> str:
    return str(tree.map_structure(lambda _: "...", nest)).replace("'...'", "...")
