"""Gymnasium spaces as dm_env specs, and the conversion of values between the two."""

from collections.abc import Callable, Mapping
from functools import partial
from operator import index
from typing import Any

import numpy as np
from dm_env import specs
from gymnasium import spaces

from rlws.environments import rules
from rlws.settings import INT, SettingError


def to_spec(space: spaces.Space | None, name: str) -> Any:
    """Returns the specs of `space`, nested as `Dict` and `Tuple` spaces are.

    A `Discrete` space becomes int32 and counts from 0, wherever the space itself starts; all others
    keep their dtype and bounds.

    Raises:
      SettingError: the space is, or contains, one that has no array of fixed shape.
    """
    match space:
        case spaces.Discrete():
            if space.n > INT:
                raise SettingError(
                    f"{name} space must be of at most {INT:,} values, got {space}; encode them as "
                    "MultiDiscrete, say"
                )
            return specs.DiscreteArray(int(space.n), np.int32, name)
        case spaces.Box():
            if np.isneginf(space.low).all() and np.isposinf(space.high).all():
                return specs.Array(space.shape, space.dtype, name)
            return specs.BoundedArray(space.shape, space.dtype, space.low, space.high, name)
        case spaces.MultiDiscrete():
            high = space.start + space.nvec - 1
            return specs.BoundedArray(space.shape, space.dtype, space.start, high, name)
        case spaces.MultiBinary():
            return specs.BoundedArray(space.shape, space.dtype, 0, 1, name)
        case spaces.Dict():
            return {key: to_spec(part, f"{name}/{key}") for key, part in space.items()}
        case spaces.Tuple():
            return tuple(to_spec(part, f"{name}/{i}") for i, part in enumerate(space))
    raise SettingError(
        f"{name} space must be of arrays of fixed shape (Box, Discrete, MultiDiscrete, MultiBinary,"
        f" Dict or Tuple), got {space}; wrap the environment in a gymnasium wrapper that encodes it"
    )


def from_gymnasium(space: spaces.Space) -> Callable[[Any], Any]:
    """Returns the function from the environment's observations to those of `to_spec(space)`.

    It takes batches, leaves [B, ...], as well. What the space does not hold comes out as it went
    in, for `checks` to name.
    """
    start = int(space.start) if isinstance(space, spaces.Discrete) else 0
    leaf = lambda part: rules.narrowed(to_spec(part, ""), start)
    return _by_parts(space, from_gymnasium, leaf)


def to_gymnasium(space: spaces.Space, batch: bool = False) -> Callable[[Any], Any]:
    """Returns the function from actions that conform to `to_spec(space)` to the environment's.

    With `batch`, from leaves [B, ...], where `space` is of one environment.
    """
    if isinstance(space, spaces.Discrete):
        start, dtype = int(space.start), space.dtype
        several = lambda values: np.asarray(values).astype(dtype, casting="same_kind", copy=False)
        # As its own `sample`. Unlike the type, `index` rejects a float, and so does "same_kind".
        one = lambda value: dtype.type(index(value))
        cast: Callable = several if batch else one
        return (lambda value: start + cast(value)) if start else cast
    # A copy, as an environment may change what it is given.
    leaf = lambda part: partial(np.array, dtype=part.dtype)
    return _by_parts(space, partial(to_gymnasium, batch=batch), leaf)


def _by_parts(space: spaces.Space, convert: Callable, leaf: Callable) -> Callable[[Any], Any]:
    if isinstance(space, spaces.Dict):
        parts = {key: convert(part) for key, part in space.items()}

        def by_key(value):
            if not isinstance(value, Mapping) or value.keys() != parts.keys():
                return value
            return {key: part(value[key]) for key, part in parts.items()}

        return by_key
    if isinstance(space, spaces.Tuple):
        items = tuple(map(convert, space))

        def by_place(value):
            if not isinstance(value, tuple | list) or len(value) != len(items):
                return value
            return tuple(item(v) for item, v in zip(items, value, strict=True))

        return by_place
    return leaf(space)
