"""Trees of arrays by path: what is saved of a tree, and how it is put back."""

import collections
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from rlws.settings import SettingError


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of a tree by path, such as "state/learner/params/mlp/w", on the host.

    Of keys, their data.

    Raises:
      SettingError: two of them have the same.
    """
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)
    leaves = jax.tree_util.tree_flatten_with_path(jax.device_get(raw))[0]
    found = {_path(path): np.asarray(x) for path, x in leaves}
    if len(found) < len(leaves):
        paths = collections.Counter(_path(path) for path, _ in leaves)
        raise SettingError(
            f"arrays must differ in their paths, got {paths.most_common(1)[0][0]!r} twice: rename "
            "a part, of an observation, say"
        )
    return found


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key)


def _raw(like: Any) -> Any:
    """Returns what `flatten` makes of an array, as shape and type, and how it is made of that."""
    if not _is_key(like):
        return like, lambda x: x
    kinds: list[Any] = []

    def told(key):
        kinds.append(jax.random.key_impl(key))
        return jax.random.key_data(key)

    shape = jax.eval_shape(told, like)
    return shape, lambda x: jax.random.wrap_key_data(x, impl=kinds[0])


def _path(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def below(arrays: Mapping[str, np.ndarray], place: str) -> dict[str, np.ndarray]:
    """Returns the arrays of the subtree at this path."""
    return {
        name: x for name, x in arrays.items() if not place or f"{name}/".startswith(f"{place}/")
    }


def restore(like: Any, arrays: Mapping[str, np.ndarray], place: str = "") -> Any:
    """Returns a tree of the same structure as `like` (arrays, or their shapes) with saved leaves.

    Those are the arrays below `place`, a path; there must be no others.

    Raises:
      SettingError: a leaf is missing, left over, or of another shape or type; each is listed.
    """
    leaves = jax.tree_util.tree_flatten_with_path(like)[0]
    arrays = below(arrays, place)
    names = ["/".join(filter(None, (place, _path(path)))) for path, _ in leaves]
    differences = [f"{name}: only saved" for name in arrays if name not in names]
    raw = [_raw(leaf) for _, leaf in leaves]
    for name, (leaf, _) in zip(names, raw, strict=True):
        here = f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
        saved = arrays.get(name)
        there = "absent" if saved is None else f"{saved.dtype.name}{list(saved.shape)}"
        if here != there:
            differences.append(f"{name}: saved {there}, now {here}")
    if differences:
        more = f", and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise SettingError(
            "the saved state must be that of this agent and environment, got other arrays: "
            + "; ".join(differences[:8])
            + more
            + "; use the settings it was saved with"
        )
    found = [made(arrays[name]) for name, (_, made) in zip(names, raw, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), found)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of arrays: of names, types, shapes and every byte."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        x = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {x.dtype.str} {x.shape}\n".encode())
        found.update(octets(x))
    return found.hexdigest()


def octets(x: np.ndarray) -> memoryview:
    """Returns the bytes of an array, which must be contiguous."""
    return x.reshape(-1).view(np.uint8).data
