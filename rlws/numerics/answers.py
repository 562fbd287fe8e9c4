"""What somebody's own part of an agent has returned, against what it must: said while traced."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from rlws.settings import SettingError

SEVERAL = "statistics"  # a metric that is a tree
# What every run logs by itself.
TAKEN = {"steps", "episodes", "updates", "seconds", "steps_per_second", "parameter_norm"}
BEGIN = "episode_", "evaluation_"


def several(who: str, names: tuple[str, ...], found: Any) -> Any:
    """Returns what a function returned, as many things as there are names."""
    if isinstance(found, tuple) and len(found) == len(names):
        return found
    got = f"{len(found)} of them" if isinstance(found, tuple) else type(found).__name__
    raise SettingError(f"{who} must return {', '.join(names[:-1])} and {names[-1]}, got {got}")


def metrics(who: str, found: Any) -> dict[str, Any]:
    """Returns metrics, once each is a real number, or an array of them, by a name for a table."""
    if not isinstance(found, Mapping):
        raise SettingError(f"{who}: metrics must be a dict, got {type(found).__name__}")
    for name, value in found.items():
        if not (isinstance(name, str) and name.isprintable()):
            raise SettingError(f"{who}: metrics must have names of one line, got {name!r}")
        if name in TAKEN or name.startswith(BEGIN):
            raise SettingError(f"{who}: a metric must not be called {name!r}: every run logs that")
        if name != SEVERAL and not _is_real(value):
            got = _kind(value)
            raise SettingError(f"{who}: metrics[{name!r}] must be a real number, got {got}")
    return dict(found)


def same(who: str, before: Any, after: Any) -> None:
    """Checks that a tree has the structure, shapes and types of what it takes the place of."""
    ours, theirs = (dict(jax.tree.leaves_with_path(tree)) for tree in (before, after))
    for path in dict.fromkeys([*ours, *theirs]):
        was, is_ = (_kind(leaves[path]) if path in leaves else "none" for leaves in (ours, theirs))
        if was != is_:
            name = jax.tree_util.keystr(path)
            raise SettingError(f"{who}{name} must stay what it was, {was}, got {is_}")
    if (was := jax.tree.structure(before)) != (is_ := jax.tree.structure(after)):
        raise SettingError(f"{who} must keep its structure, {was}, got {is_}")


def _is_numeric(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex) or hasattr(value, "dtype")


def _is_real(value: Any) -> bool:
    complexes = jnp.complexfloating
    return _is_numeric(value) and not jnp.issubdtype(jnp.result_type(value), complexes)


def _kind(value: Any) -> str:
    if _is_numeric(value):
        return f"{jnp.result_type(value)}{list(jnp.shape(value))}"
    return type(value).__name__
