"""Batch normalisation; its running statistics stand among the parameters."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from rlws.settings import Fraction, NonNegativeInt, SettingError, Settings
from rlws.types import Array, Params

OBSERVATIONS = "observations"  # the axis along which a network learns from several
RUNNING = "running_"  # what names of statistics begin with
R_MAX, D_MAX = 3.0, 5.0  # limits of renormalisation, those of CrossQ
EPSILON = 1e-3

_learning: contextvars.ContextVar[Any] = contextvars.ContextVar("learning", default=None)


class BatchNorm(Settings):
    """Features [..., n] with mean 0 and deviation 1, then scaled and moved by parameters.

    Ioffe and Szegedy, 2015, "Batch normalization". https://arxiv.org/abs/1502.03167
    Where a network learns (`Network.train`), mean and variance are those of all observations of the
    batch that have weight; else running ones. After `warm_up` it is renormalised: learning then
    sees what acting does, up to limits. Ioffe, 2017, "Batch renormalization", algorithm 1.
    https://arxiv.org/abs/1702.03275
    """

    rate: Fraction = 0.01  # how far running statistics move to those of a batch
    warm_up: NonNegativeInt | None = 100_000  # updates without renormalisation; None: all of them

    def __call__(self, x: Array) -> Array:
        """Returns them, [..., n]; called inside the one `hk.transform`."""
        return hk.to_module(self._normalised)("batch_norm")(x)

    def _normalised(self, x):
        def kept(name, shape, value):
            init = hk.initializers.Constant(value)
            return jax.lax.stop_gradient(hk.get_parameter(RUNNING + name, shape, init=init))

        size = x.shape[-1:]
        scale = hk.get_parameter("scale", size, init=jnp.ones)
        offset = hk.get_parameter("offset", size, init=jnp.zeros)
        running = {"mean": kept("mean", size, 0.0), "variance": kept("variance", size, 1.0)}
        updates = kept("updates", (), 0.0)
        centre, deviation = running["mean"], jnp.sqrt(running["variance"] + EPSILON)
        if (learning := _learning.get()) is not None:
            weight, found = learning
            own, some = _moments(x, weight)
            rate = self.rate * some
            moved = {k: running[k] + rate * (own[k] - running[k]) for k in own}
            moved = {RUNNING + k: v for k, v in {**moved, "updates": updates + some}.items()}
            found[hk.current_name()] = jax.lax.stop_gradient(moved)
            warm = updates < jnp.inf if self.warm_up is None else updates < self.warm_up
            centre, deviation = _limited(own, centre, deviation, warm)
        with jax.numpy_rank_promotion("allow"):  # pixels have axes before that of channels
            return (x - centre) / deviation * scale + offset


def _moments(x, weight):
    """Returns mean and variance of one observation's batch, and whether any has weight (0 or 1)."""
    total = lambda y: jax.lax.psum(jnp.where(weight > 0, y, 0.0), ("batch", OBSERVATIONS))
    count = total(1.0)
    along = tuple(range(x.ndim - 1))
    average = lambda y: total(y.mean(axis=along)) / jnp.maximum(count, 1.0)
    mean = average(x)
    with jax.numpy_rank_promotion("allow"):
        variance = average(jnp.square(x - mean))
    return {"mean": mean, "variance": variance}, jnp.minimum(count, 1.0)


def _limited(own, mean, deviation, warm):
    """Returns centre and deviation by which features are (x - mean) / deviation * r + d."""
    own_deviation = jnp.sqrt(own["variance"] + EPSILON)
    r = jnp.clip(own_deviation / deviation, 1.0 / R_MAX, R_MAX)
    d = jnp.clip((own["mean"] - mean) / deviation, -D_MAX, D_MAX)
    r, d = jax.lax.stop_gradient((jnp.where(warm, 1.0, r), jnp.where(warm, 0.0, d)))
    return own["mean"] - d * own_deviation / r, own_deviation / r


@contextlib.contextmanager
def learning(weight: Array) -> Iterator[dict[str, dict[str, Array]]]:
    """Normalises by the batch; yields what becomes of the running statistics, by module.

    Args:
      weight: of the one observation that is seen; 0 if it is not experience.
    """
    found: dict[str, dict[str, Array]] = {}
    token = _learning.set((weight, found))
    try:
        yield found
    finally:
        _learning.reset(token)


def merge(params: Params, found: Params) -> Params:
    """Returns parameters with those statistics that were found."""
    if not isinstance(found, dict):
        return found
    return {**params, **{name: merge(params[name], part) for name, part in found.items()}}


def statistics(params: Params) -> set[str]:
    """Returns where among parameters there are running statistics."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    return {name for name in names if name.rpartition("/")[2].startswith(RUNNING)}


def check(params: Params, found: Params) -> None:
    """Raises a SettingError if running statistics would never move."""
    if forgotten := statistics(params) - statistics(found):
        raise SettingError(
            f"batch normalisation: this learner does not move {min(forgotten)}, so that whoever "
            "acts would know no statistics; take layer normalisation, an agent made for it such as "
            "crossq or sac, or call Network.train and return its second part as the metric "
            "`statistics`"
        )
