"""Distributions over actions, as pytrees of their parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from dm_env import specs

from rlws.settings import SettingError
from rlws.types import Array, Key


class Categorical(NamedTuple):
    """One of n actions, by unnormalised log-probabilities."""

    logits: Array  # [..., n]

    def sample(self, key: Key) -> Array:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def mode(self) -> Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]

    def entropy(self) -> Array:
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def check_actions(self, name: str, spec: Any) -> None:
        """Raises a SettingError unless these are distributions over the actions of `spec`."""
        if not isinstance(spec, specs.DiscreteArray):
            raise SettingError(
                f"head {name!r} is categorical and needs a discrete action spec, got {spec}; "
                "use an environment with discrete actions or a head for continuous ones"
            )
        if self.logits.shape != (spec.num_values,):
            raise SettingError(
                f"head {name!r} has logits of shape {self.logits.shape}, but the environment's "
                f"{spec.num_values} actions need shape ({spec.num_values},)"
            )
