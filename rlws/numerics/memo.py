"""Remembering what was made: a run like one before it, in one process, compiles nothing again."""

import contextlib
import functools
import inspect
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.settings import Settings

SIZE = 16  # of what one function has made


class Remembered:
    """A pure function that, where `share` was called, makes equal things once.

    Not where that is not known to be the same: for arguments of which `known` knows nothing, and
    while JAX traces, as what is made then may hold its tracers. It travels to other processes
    without what it has made.
    """

    def __init__(self, make: Callable, by: Callable[..., Any] | None = None):
        """Remembers by what `by` returns of the arguments, by default by all of them."""
        functools.update_wrapper(self, make)
        self._make, self._by = make, by
        self.made = dict[Any, tuple[Any, Any]]()  # the last used comes last
        self._lock = threading.Lock()
        _all.add(self)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self):
        return Remembered, (self._make, self._by)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = self._key(args, kwargs) if _sharing else None
        if key is None:
            return self._make(*args, **kwargs)
        with self._lock:
            if key in self.made:
                self.made[key] = self.made.pop(key)
                return self.made[key][1]
        made = self._make(*args, **kwargs)
        if isinstance(jnp.zeros(()), jax.core.Tracer):
            return made
        with self._lock:
            # Arguments, too: some are known by where they are.
            made = self.made.setdefault(key, ((args, kwargs), made))[1]
            if len(self.made) > SIZE:
                self.made.pop(next(iter(self.made)))
        return made

    def _key(self, args, kwargs):
        try:
            given = inspect.signature(self._make).bind(*args, **kwargs)
            given.apply_defaults()
            values = tuple(given.arguments.values())
            by = values if self._by is None else self._by(*values)
            return jax.dtypes.canonicalize_dtype(float), known(by)
        except TypeError:
            return None


_all = weakref.WeakSet[Remembered]()
_sharing = False


def remembered_of(make: Callable) -> Remembered:
    """Returns `make`, remembered, whose first argument, such as an agent, is known by identity."""
    return Remembered(make, by=_by_identity)


def _by_identity(one, *rest):
    return id(one), *rest


def share() -> None:
    """Has equal things made once from here on.

    For processes in which code does not change: what a function looks up by name, such as a helper
    that a notebook defines anew, is not looked at.
    """
    global _sharing
    _sharing = True


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Shares within it, where nobody shares for good; forgets what was made after it."""
    global _sharing
    before, _sharing = _sharing, True
    try:
        yield
    finally:
        _sharing = before
        if not before:
            forget()


def forget() -> None:
    """Forgets all that was made; for those who change code while it runs."""
    for each in list(_all):
        each.made.clear()


def known(x: Any) -> Any:
    """Returns something to compare and hash in place of settings, specs, nests and functions.

    Raises:
      TypeError: `x` may change, as an array may, or is a tracer, or nothing is known of it.
    """
    if isinstance(x, Settings):
        return type(x), *(_setting(getattr(x, field.name)) for field in fields(x))  # type: ignore[arg-type]
    if isinstance(x, specs.Array):
        return known(x.__reduce__())
    if isinstance(x, tuple):
        return type(x), *map(known, x)
    if isinstance(x, dict):  # of specs; one of settings may change
        return type(x), *map(known, x.items())
    if isinstance(x, np.ndarray) and not x.flags.writeable:
        return x.shape, x.dtype, x.tobytes()
    if isinstance(x, _CONSTANT):
        return type(x), x  # as 1, 1.0 and True are equal
    raise TypeError(f"nothing is known of {x!r}")


def _setting(x: Any) -> Any:
    if isinstance(x, dict):
        raise TypeError("a dict among settings may change")
    return known(x)


_CONSTANT = (
    str,
    int,
    float,
    bytes,
    types.NoneType,
    types.FunctionType,
    types.BuiltinFunctionType,
    type,
    np.dtype,
    np.generic,
)
