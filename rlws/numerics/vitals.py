"""Vital signs: what a batch says of an agent's health, over its steps of weight."""

import jax
import jax.numpy as jnp

from rlws.settings import SettingError
from rlws.types import Array, Metrics


def signs(metrics: Metrics, weight: Array) -> Metrics:
    """Takes `value` with `target`, and `action`, out of metrics; returns what they say.

    They may be of the last steps only [B, T, ...], where those before warm up a core.
    """
    found = {}
    last = lambda x: weight[:, weight.shape[1] - x.shape[1] :]
    if {"value", "target"} <= metrics.keys():
        value, target = metrics.pop("value"), metrics.pop("target")
        if value.shape != target.shape or value.ndim != 2:
            raise SettingError(
                f"metrics value and target must have shape (T,), one entry a step, got "
                f"{value.shape[1:]} and {target.shape[1:]}; squeeze or slice them"
            )
        found["explained_variance"] = explained_variance(value, target, last(value))
    if "action" in metrics and metrics["action"].ndim == 3:
        action = metrics.pop("action")
        found["action_spread"] = spread(action, last(action))
    return found


def explained_variance(values: Array, targets: Array, weight: Array) -> Array:
    """Returns 1 - Var(targets - values) / Var(targets), at least -1 so that it can be averaged.

    1: values [B, T] say all there is to say of their targets [B, T], 0: no more than a constant
    would.
    """
    both = jnp.stack([targets, targets - values], axis=-1)
    target, error = _variances(both, weight)
    return jnp.maximum(1.0 - error / jnp.maximum(target, 1e-12), -1.0)


def spread(actions: Array, weight: Array) -> Array:
    """Returns the deviation over states of each component of actions [B, T, n], on average."""
    return jnp.sqrt(_variances(actions, weight)).mean()


def _variances(x, weight):
    """Returns the variance of each component of x [B, T, n], [n]."""
    x, real = jax.lax.stop_gradient(x), (weight > 0)[..., None]
    count = jnp.maximum(real.sum(), 1)
    mean = lambda y: jnp.where(real, y, 0.0).sum(axis=(0, 1)) / count
    return mean(jnp.square(x - mean(x)[None, None]))
