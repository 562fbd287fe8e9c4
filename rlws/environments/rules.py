"""What the steps of a run must be, on the side of the policy and of the environment.

Written once for NumPy and for JAX: a host looks at blocks of rows, a device within its program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
import tree
from dm_env import specs

from rlws.types import EnvironmentSpec

FIRST, LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)
VAST = 1e30  # bounds so far apart stand for none


class Rule(NamedTuple):
    """What numbers must be, and where they are not."""

    name: str  # of the numbers, such as "observation['position']"
    must: str
    x: Any  # the numbers, [T, B, ...]
    broken: Any  # bool, of the same shape
    whose: str = "environment"  # or "policy"


def rules(
    spec: EnvironmentSpec, action: Any, step_type: Any, after: dm_env.TimeStep, xp: Any = np
) -> list[Rule]:
    """Returns the rules for steps [T, B]; of a step, the earlier rule is the cause of the later.

    Args:
      spec: of the environment.
      action: what the policy chose, leaves [T, B, ...].
      step_type: of the timesteps in which it did, [T, B].
      after: the timesteps that this led to, leaves [T, B, ...].
      xp: numpy or jax.numpy.
    """
    restarted, ended = after.step_type == FIRST, step_type == LAST
    broken = (restarted != ended) | (after.step_type < 0) | (after.step_type > LAST)
    must = "FIRST (0) after a LAST (2) and only there, else MID (1) or LAST"
    order = Rule("step_type", must, after.step_type, broken)
    return [*of_actions(spec.actions, action, xp), order, *of_timesteps(spec, after, xp)]


def of_actions(spec: Any, action: Any, xp: Any = np) -> list[Rule]:
    """Returns the rules for actions, leaves [T, B, ...]; beyond bounds, real ones are clipped."""
    not_finite = lambda leaf, x: (
        xp.isnan(x) if isinstance(leaf, specs.BoundedArray) else ~xp.isfinite(x)
    )
    found = _of_leaves("action", spec, action, not_finite)
    return [rule._replace(whose="policy") for rule in found]


def of_timesteps(spec: EnvironmentSpec, timestep: dm_env.TimeStep, xp: Any = np) -> list[Rule]:
    """Returns the rules for the numbers in timesteps, leaves [T, B, ...].

    Whole numbers must be within the bounds of their spec; real ones may be beyond, as those of many
    environments are.
    """
    discount, reward = timestep.discount, timestep.reward
    within = (discount >= 0) & (discount <= 1)
    found = [Rule("discount", "within [0, 1]", discount, ~within)]
    found.append(Rule("reward", "finite", reward, ~xp.isfinite(reward)))
    return found + of_observations(spec.observations, timestep.observation, xp)


def of_observations(spec: Any, observation: Any, xp: Any = np) -> list[Rule]:
    """Returns the rules for the numbers in observations, leaves [..., *spec.shape]."""
    return _of_leaves("observation", spec, observation, lambda leaf, x: ~xp.isfinite(x))


def _of_leaves(name: str, spec: Any, nest: Any, not_finite: Callable) -> list[Rule]:
    found = list[Rule]()
    leaves = jax.tree.leaves_with_path(spec)
    for (path, leaf), x in zip(leaves, jax.tree.leaves(nest), strict=True):
        found += _of_leaf(name + jax.tree_util.keystr(path), leaf, x, not_finite)
    return found


def _of_leaf(name: str, spec: specs.Array, x: Any, not_finite: Callable) -> list[Rule]:
    """Returns the rule for real numbers, or whole ones that may be beyond their spec's bounds."""
    if jax.numpy.issubdtype(x.dtype, np.floating):  # which knows bfloat16, too
        return [Rule(name, "finite", x, not_finite(spec, x))]
    if not isinstance(spec, specs.BoundedArray) or x.dtype.kind not in "iu":
        return []
    low, high, held = spec.minimum, spec.maximum, np.iinfo(x.dtype)
    if (low <= held.min).all() and (high >= held.max).all():
        return []
    beyond = (x < np.broadcast_to(low, x.shape)) | (x > np.broadcast_to(high, x.shape))
    return [Rule(name, f"within [{low}, {high}]", x, beyond)]


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
    if shape != spec.shape or not of_kind(x.dtype, spec.dtype):
        wanted = f"{spec.dtype}{list(spec.shape)}"
        return f" must be {wanted}, as the spec says, got {x.dtype}{list(shape)}"
    if isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct):
        return None
    held = jax.dtypes.canonicalize_dtype(spec.dtype)
    if (changed := lost(spec, x := np.asarray(x), held)).any():
        one = x[changed][:1]
        with np.errstate(over="ignore"):
            return f" must fit into {held}, got {one[0]}, which it holds as {one.astype(held)[0]}"
    return None


def of_kind(dtype: np.dtype, wanted: np.dtype) -> bool:
    """Returns whether numbers of a type may be taken for such of another, if it holds them."""
    whole = dtype.kind in "iu" and wanted.kind in "iu"
    return whole or np.can_cast(dtype, wanted, "same_kind")


def lost(spec: specs.Array, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns which numbers of a spec would become others in a type: all that may be narrowed.

    Whole numbers must stay what they are. Real ones may be rounded: see `rounding`.
    """
    if x.dtype == dtype:
        return np.asarray(False)
    with np.errstate(over="ignore", invalid="ignore"):
        held = x.astype(dtype)
        if x.dtype.kind != "f":
            return held != x
        return (np.abs(held - x) > rounding(spec)) & np.isfinite(x)


def narrowed(spec: specs.Array, start: int = 0) -> Callable[[Any], Any]:
    """Returns the function from a value to an array of the type of its spec, less `start`.

    What would become other numbers comes out as it went in, for `unlike` to name.
    """
    dtype = spec.dtype
    # Numbers whose squares add up to less are rounded by less than they may be, as is soon seen.
    safe = (rounding(spec).min() / np.finfo(dtype).eps) ** 2 if dtype.kind == "f" else 0.0

    def narrow(value):
        try:
            x = np.asarray(value)
        except ValueError:  # rows of different lengths
            return value
        if start and x.dtype.kind in "iub":
            x = np.asarray(x - start)
        if x.dtype is dtype or not of_kind(x.dtype, dtype):
            return x
        seen = x.dtype.kind == "f" and np.vdot(x, x) < safe
        return x.astype(dtype) if seen or not lost(spec, x, dtype).any() else x

    return narrow


def narrowing(name: str, spec: specs.Array, x: np.ndarray, dtype: np.dtype) -> Rule:
    """Returns the rule for numbers of a spec that will be of a narrower type."""
    return Rule(name, f"what {dtype} can hold", x, lost(spec, x, dtype))


def rounding(spec: specs.Array) -> np.ndarray:
    """Returns by how much a real number may change when it is narrowed, as float64 to float32.

    It is a thousandth of the range between its bounds or, where it has none, 1/2.
    """
    low, high = getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)
    with np.errstate(over="ignore"):
        span = np.float64(high) - np.float64(low)
    return np.where((span > 0) & (span < VAST), span / 1000, 0.5)


def _keys(nest: Any) -> str:
    return str(tree.map_structure(lambda _: "...", nest)).replace("'...'", "...")
