"""Heads: from features to what the algorithm needs. Any callable will do."""

import haiku as hk
import jax.numpy as jnp
from dm_env import specs

from rlws.networks.distributions import Categorical
from rlws.settings import NonNegative, PositiveInt, SettingError, Settings
from rlws.types import Array, EnvironmentSpec


class CategoricalPolicy(Settings):
    """A distribution over n discrete actions."""

    num_actions: PositiveInt
    scale: NonNegative = 0.01  # small, so the first policy is near uniform

    @classmethod
    def of(cls, spec: EnvironmentSpec) -> "CategoricalPolicy":
        """Returns the head for the actions of `spec`, which must be discrete."""
        if not isinstance(spec.actions, specs.DiscreteArray):
            raise SettingError(
                f"a categorical policy needs discrete actions, got {spec.actions}; "
                "choose an environment with a discrete action space, such as gym:CartPole-v1"
            )
        return cls(spec.actions.num_values)

    def __call__(self, features: Array) -> Categorical:
        init = hk.initializers.Orthogonal(self.scale)
        return Categorical(hk.Linear(self.num_actions, w_init=init)(features))


class Value(Settings):
    """A state value."""

    scale: NonNegative = 1.0

    def __call__(self, features: Array) -> Array:
        init = hk.initializers.Orthogonal(self.scale)
        return jnp.squeeze(hk.Linear(1, w_init=init)(features), axis=-1)
