"""Distributions over actions, as pytrees of their parameters."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.networks.masks import ILLEGAL
from rlws.settings import SettingError
from rlws.types import Array, Key

LOG_2, LOG_2_PI = math.log(2.0), math.log(2.0 * math.pi)


class Categorical(NamedTuple):
    """One of n actions, by unnormalised log-probabilities."""

    logits: Array  # [..., n]

    def sample(self, key: Key) -> Array:
        return jax.random.categorical(key, self.logits).astype(jnp.int32)

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        # Not by index: the gradient of that is a scatter, which on a CPU is a loop.
        numbers = jax.lax.broadcasted_iota(jnp.int32, self.logits.shape, self.logits.ndim - 1)
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.sum(jnp.where(action[..., None] == numbers, log_probs, 0.0), axis=-1)

    def entropy(self) -> Array:
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def kl(self, other: "Categorical") -> Array:
        """Returns the divergence of `other` from this, sum p log(p / q), [...]."""
        log, others = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(log) * (log - others), axis=-1)

    def divergences(self, other: "Categorical") -> Array:
        """Returns that by parts which can be bounded apart: its only one, [..., 1]."""
        return self.kl(other)[..., None]

    def masked(self, legal: Array) -> "Categorical":
        """Returns the distribution over the legal actions, bool [..., n], alone."""
        return Categorical(jnp.where(legal, self.logits, ILLEGAL))

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


class Normal(NamedTuple):
    """Independent normal distributions over the components of an action [n]."""

    mean: Array  # [..., n]
    log_std: Array  # [..., n]

    def sample(self, key: Key) -> Array:
        noise = jax.random.normal(key, self.mean.shape)
        return self.mean + jnp.exp(self.log_std) * noise

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Array:
        return self.mean

    def log_prob(self, action: Array) -> Array:
        return _normal_log_prob((action - self.mean) / jnp.exp(self.log_std), self.log_std)

    def entropy(self) -> Array:
        return jnp.sum(self.log_std + 0.5 * (1.0 + LOG_2_PI), axis=-1)

    def kl(self, other: "Normal") -> Array:
        """Returns the divergence of `other` from this, [...], in closed form."""
        apart = jnp.square((self.mean - other.mean) * jnp.exp(-other.log_std))
        log_ratio = self.log_std - other.log_std
        return 0.5 * jnp.sum(apart + jnp.expm1(2.0 * log_ratio) - 2.0 * log_ratio, axis=-1)

    def divergences(self, other: "Normal") -> Array:
        """Returns that by parts which can be bounded apart, [..., 2].

        If only the mean were another, and if only the deviation: Abdolmaleki et al., 2018,
        "Relative entropy regularized policy iteration".
        """
        parts = Normal(other.mean, self.log_std), Normal(self.mean, other.log_std)
        return jnp.stack([self.kl(part) for part in parts], axis=-1)

    def check_actions(self, name: str, spec: Any) -> None:
        """Raises a SettingError unless these are distributions over the actions of `spec`."""
        _check_vector(name, spec, self.mean.shape)


class TanhNormal(NamedTuple):
    """centre + half_range * tanh(u) with independent normal u: actions within bounds.

    Haarnoja et al., 2018, "Soft actor-critic algorithms and applications", appendix C. Its entropy
    has no closed form; -log_prob of a sample estimates it.
    """

    mean: Array  # of u, [..., n]
    log_std: Array  # of u, [..., n]
    centre: Array  # of the actions, [..., n]
    half_range: Array  # of the actions, [..., n]

    def sample(self, key: Key) -> Array:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        noise = jax.random.normal(key, self.mean.shape)
        u = self.mean + jnp.exp(self.log_std) * noise
        return self._action(u), _normal_log_prob(noise, self.log_std) - self._log_slope(u)

    def mode(self) -> Array:
        return self._action(self.mean)

    def log_prob(self, action: Array) -> Array:
        # Where float32 puts an action at its bound, u would be infinite.
        y = jnp.clip((action - self.centre) / self.half_range, -1 + 1e-6, 1 - 1e-6)
        u = jnp.arctanh(y)
        scaled = (u - self.mean) / jnp.exp(self.log_std)
        return _normal_log_prob(scaled, self.log_std) - self._log_slope(u)

    def _action(self, u: Array) -> Array:
        return self.centre + self.half_range * jnp.tanh(u)

    def _log_slope(self, u: Array) -> Array:
        # log of d action / d u; 1 - tanh(u)^2 itself would round to 0 from u = 9 on.
        log_slope = 2.0 * (LOG_2 - u - jax.nn.softplus(-2.0 * u)) + jnp.log(self.half_range)
        return jnp.sum(log_slope, axis=-1)

    def check_actions(self, name: str, spec: Any) -> None:
        """Raises a SettingError unless these are distributions over the actions of `spec`."""
        _check_vector(name, spec, self.mean.shape)


class MultiCategorical(NamedTuple):
    """Independent choices, k at once: component i of an action is one of n_i whole numbers."""

    logits: Array  # [..., k, n] with the largest n_i; beyond a component's own they are `ILLEGAL`
    lowest: Array  # of each component, int32 [..., k]

    def sample(self, key: Key) -> Array:
        return self.lowest + Categorical(self.logits).sample(key)

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        action = self.sample(key)
        return action, self.log_prob(action)

    def mode(self) -> Array:
        return self.lowest + Categorical(self.logits).mode()

    def log_prob(self, action: Array) -> Array:
        return Categorical(self.logits).log_prob(action - self.lowest).sum(axis=-1)

    def entropy(self) -> Array:
        return Categorical(self.logits).entropy().sum(axis=-1)

    def kl(self, other: "MultiCategorical") -> Array:
        """Returns the divergence of `other` from this, [...]."""
        return Categorical(self.logits).kl(Categorical(other.logits)).sum(axis=-1)

    def divergences(self, other: "MultiCategorical") -> Array:
        """Returns that by parts which can be bounded apart: its only one, [..., 1]."""
        return self.kl(other)[..., None]

    def masked(self, legal: Array) -> "MultiCategorical":
        """Returns the distribution over the legal choices, bool [..., k, n], alone."""
        return self._replace(logits=jnp.where(legal, self.logits, ILLEGAL))

    def check_actions(self, name: str, spec: Any) -> None:
        """Raises a SettingError unless these are distributions over the actions of `spec`."""
        whole = isinstance(spec, specs.Array) and np.issubdtype(spec.dtype, np.integer)
        if not whole or spec.shape != self.lowest.shape:
            raise SettingError(
                f"head {name!r} is for {self.lowest.size} whole numbers at once, but the "
                f"environment's actions are {spec}; use networks.policy(spec)"
            )


class Joint(NamedTuple):
    """Independent distributions of the parts of a nested action."""

    parts: Any  # distributions, nested as the action is

    def sample(self, key: Key) -> Any:
        return self.sample_and_log_prob(key)[0]

    def sample_and_log_prob(self, key: Key) -> tuple[Any, Array]:
        parts, structure = self._flat()
        keys = jax.random.split(key, len(parts))
        drawn = [part.sample_and_log_prob(k) for part, k in zip(parts, keys, strict=True)]
        actions, log_probs = zip(*drawn, strict=True)
        return jax.tree.unflatten(structure, actions), sum(log_probs)

    def mode(self) -> Any:
        parts, structure = self._flat()
        return jax.tree.unflatten(structure, [part.mode() for part in parts])

    def log_prob(self, action: Any) -> Array:
        parts, _ = self._flat()
        each = zip(parts, jax.tree.leaves(action), strict=True)
        return sum(part.log_prob(x) for part, x in each)

    def entropy(self) -> Array:
        return sum(part.entropy() for part in self._flat()[0])

    def kl(self, other: "Joint") -> Array:
        """Returns the divergence of `other` from this, [...]."""
        each = zip(self._flat()[0], other._flat()[0], strict=True)
        return sum(one.kl(two) for one, two in each)

    def divergences(self, other: "Joint") -> Array:
        """Returns that by parts which can be bounded apart, [..., 2], or [..., 1].

        Sums over parts of the action: of choices and means, and of deviations, where there are any.
        """
        each = zip(self._flat()[0], other._flat()[0], strict=True)
        found = [one.divergences(two) for one, two in each]
        return jnp.stack(
            [
                sum(x[..., i] for x in found if i < x.shape[-1])
                for i in range(max(x.shape[-1] for x in found))
            ],
            axis=-1,
        )

    def masked(self, legal: Any) -> "Joint":
        """Returns the distribution over the legal choices of each part, nested as the action is."""
        parts, structure = self._flat()
        each = zip(parts, jax.tree.leaves(legal), strict=True)
        return Joint(jax.tree.unflatten(structure, [one.masked(mask) for one, mask in each]))

    def _flat(self):
        return jax.tree.flatten(self.parts, is_leaf=lambda x: hasattr(x, "log_prob"))

    def check_actions(self, name: str, spec: Any) -> None:
        """Raises a SettingError unless these are distributions over the actions of `spec`."""
        parts, structure = self._flat()
        if structure != jax.tree.structure(spec):
            raise SettingError(
                f"head {name!r} is for actions nested as {structure}, but the environment's are "
                f"{spec}; use networks.policy(spec)"
            )
        for part, leaf in zip(parts, jax.tree.leaves(spec), strict=True):
            part.check_actions(name, leaf)


def _normal_log_prob(noise: Array, log_std: Array) -> Array:
    return -0.5 * jnp.sum(noise**2 + 2.0 * log_std + LOG_2_PI, axis=-1)


def _check_vector(name: str, spec: Any, shape: tuple[int, ...]) -> None:
    if isinstance(spec, specs.DiscreteArray) or getattr(spec, "shape", None) != shape:
        raise SettingError(
            f"head {name!r} is for continuous actions of shape {shape}, but the environment's are "
            f"{spec}; use an environment with such actions or another head"
        )
