"""Whether an environment does what it says."""

from typing import Any

import dm_env
import jax
import numpy as np

from rlws.settings import SettingError
from rlws.types import EnvironmentSpec


class EnvironmentFault(SettingError):
    """An environment does not do what it says, or does not answer."""

    status = 4  # of a process that ends because of it


def check_first(spec: EnvironmentSpec, timestep: dm_env.TimeStep, index: int) -> None:
    """Checks the timestep with which an environment begins, so before anything is compiled.

    Raises:
      EnvironmentFault: it is no FIRST one, or not as `check_timestep` wants it, or not finite.
    """
    who = f"environment {index}"
    if not isinstance(timestep, dm_env.TimeStep) or timestep.step_type != dm_env.StepType.FIRST:
        raise EnvironmentFault(
            f"{who}: reset must return a FIRST dm_env.TimeStep, got {timestep!r}"
        )
    check_timestep(spec, timestep, index)
    for path, x in jax.tree.leaves_with_path(timestep.observation):
        x = np.asarray(x)
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            name = f"{who}: observation{jax.tree_util.keystr(path)}"
            raise EnvironmentFault(f"{name} must be finite, got {x}; mend the environment")


def check_timestep(spec: EnvironmentSpec, timestep: Any, index: int) -> None:
    """Checks what a timestep of an environment is made of.

    Raises:
      EnvironmentFault: it is no TimeStep; its step type, reward or discount is no number; its
        observation has another structure, shape or kind of number than the spec says, or a number
        that does not fit into the type in which JAX computes with it.
    """
    who = f"environment {index}"
    if not isinstance(timestep, dm_env.TimeStep):
        raise EnvironmentFault(f"{who} must return a dm_env.TimeStep, got {timestep!r}")
    first = timestep.step_type == dm_env.StepType.FIRST
    if np.ndim(timestep.step_type) != 0 or timestep.step_type not in (0, 1, 2):
        raise EnvironmentFault(
            f"{who}: step_type must be FIRST, MID or LAST, got {timestep.step_type!r}"
        )
    for name in ("reward", "discount"):
        x = np.asarray(found := getattr(timestep, name))
        if not (x.shape == () and x.dtype.kind in "biuf") and not (first and found is None):
            raise EnvironmentFault(
                f"{who}: {name} must be a number, None only on FIRST, got {found!r}"
            )
    wanted, found = spec.observations, timestep.observation
    if jax.tree.structure(wanted) != jax.tree.structure(found):
        raise EnvironmentFault(
            f"{who}: its observation must be {_keys(wanted)}, as its spec says, got {_keys(found)}"
        )
    for (path, leaf), x in zip(
        jax.tree.leaves_with_path(wanted), jax.tree.leaves(found), strict=True
    ):
        name, x = f"{who}: observation{jax.tree_util.keystr(path)}", np.asarray(x)
        if x.shape != leaf.shape or not np.can_cast(x.dtype, leaf.dtype, "same_kind"):
            raise EnvironmentFault(
                f"{name} must be {leaf.dtype}{list(leaf.shape)}, as its spec says, got "
                f"{x.dtype}{list(x.shape)}; mend the environment or its observation_spec"
            )
        held = jax.dtypes.canonicalize_dtype(leaf.dtype)
        if x.dtype.kind in "iu" and not np.array_equal(x.astype(held), x):
            raise EnvironmentFault(f"{name} must fit into {held}, got {x}")


def check_order(step_type: np.ndarray, discount: np.ndarray) -> None:
    """Checks rows [T, B] that were played: FIRST comes after LAST and nowhere else.

    Raises:
      EnvironmentFault: it does not, or a step type is none, or a discount is not within [0, 1].
    """
    first, last = step_type == dm_env.StepType.FIRST, step_type == dm_env.StepType.LAST
    for name, bad, x, rule in (
        ("step_type", (step_type < 0) | (step_type > 2), step_type, "FIRST (0), MID or LAST (2)"),
        ("discount", (discount < 0) | (discount > 1), discount, "within [0, 1]"),
        ("step_type", first[1:] & ~last[:-1], step_type[1:], "FIRST (0) only after a LAST (2)"),
        (
            "step_type",
            last[:-1] & (step_type[1:] == 1),
            step_type[1:],
            "FIRST (0) after a LAST (2)",
        ),
    ):
        if bad.any():
            place = tuple(np.argwhere(bad)[0])
            raise EnvironmentFault(
                f"environment {place[1]}: {name} must be {rule}, got {x[place]}; "
                "mend the environment"
            )


def check_same(first: EnvironmentSpec, other: EnvironmentSpec, index: int) -> None:
    """Checks that environments played side by side can be.

    Raises:
      EnvironmentFault: observations or actions of environment `index` are not those of the first.
    """
    for part in ("observations", "actions"):
        ours, theirs = getattr(first, part), getattr(other, part)
        if jax.tree.map(_kind, ours) != jax.tree.map(_kind, theirs):
            raise EnvironmentFault(
                f"environment {index}: its {part} must be those of environment 0, {ours}, got "
                f"{theirs}; all environments of a run are alike"
            )


def _kind(spec: Any) -> tuple:
    return tuple(spec.shape), str(spec.dtype), getattr(spec, "num_values", None)


def _keys(nest: Any) -> str:
    return str(jax.tree.map(lambda _: "...", nest)).replace("'...'", "...")
