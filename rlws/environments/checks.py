"""Whether an environment does what it says."""

from typing import Any

import dm_env
import jax
import numpy as np

from rlws.settings import SettingError
from rlws.types import EnvironmentSpec


def check_first(spec: EnvironmentSpec, timestep: dm_env.TimeStep, index: int) -> None:
    """Checks the timestep with which an environment begins, so before anything is compiled.

    Raises:
      SettingError: it is no FIRST one, or its observation has another structure, shape or kind of
        number than the spec says, or is not finite.
    """
    who = f"environment {index}"
    if not isinstance(timestep, dm_env.TimeStep) or not timestep.first():
        raise SettingError(f"{who}: reset must return a FIRST dm_env.TimeStep, got {timestep!r}")
    wanted, found = spec.observations, timestep.observation
    if jax.tree.structure(wanted) != jax.tree.structure(found):
        raise SettingError(
            f"{who}: its observation must be {_keys(wanted)}, as its spec says, got {_keys(found)}"
        )
    for (path, leaf), x in zip(
        jax.tree.leaves_with_path(wanted), jax.tree.leaves(found), strict=True
    ):
        name, x = f"{who}: observation{jax.tree_util.keystr(path)}", np.asarray(x)
        if x.shape != leaf.shape or not np.can_cast(x.dtype, leaf.dtype, "same_kind"):
            raise SettingError(
                f"{name} must be {leaf.dtype}{list(leaf.shape)}, as its spec says, got "
                f"{x.dtype}{list(x.shape)}; mend the environment or its observation_spec"
            )
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
            raise SettingError(f"{name} must be finite, got {x}; mend the environment")


def check_same(first: EnvironmentSpec, other: EnvironmentSpec, index: int) -> None:
    """Checks that environments played side by side can be.

    Raises:
      SettingError: observations or actions of environment `index` are not those of environment 0.
    """
    for part in ("observations", "actions"):
        ours, theirs = getattr(first, part), getattr(other, part)
        if jax.tree.map(_kind, ours) != jax.tree.map(_kind, theirs):
            raise SettingError(
                f"environment {index}: its {part} must be those of environment 0, {ours}, got "
                f"{theirs}; all environments of a run are alike"
            )


def _kind(spec: Any) -> tuple:
    return tuple(spec.shape), str(spec.dtype), getattr(spec, "num_values", None)


def _keys(nest: Any) -> str:
    return str(jax.tree.map(lambda _: "...", nest)).replace("'...'", "...")
