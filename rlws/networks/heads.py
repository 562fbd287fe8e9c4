"""Heads: from features to what the algorithm needs. Any callable will do."""

from collections.abc import Callable
from typing import Any, Self

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.critics import Critic, Returns, Scalar
from rlws.networks.distributions import Categorical, Joint, MultiCategorical, Normal, TanhNormal
from rlws.networks.initializers import Orthogonal
from rlws.networks.masks import ILLEGAL
from rlws.networks.noise import linear
from rlws.settings import NonNegative, Positive, PositiveInt, SettingError, Settings
from rlws.types import Array, EnvironmentSpec, Key


class CategoricalPolicy(Settings):
    """A distribution over n discrete actions."""

    num_actions: PositiveInt
    scale: NonNegative = 0.01  # small, so the first policy is near uniform

    @classmethod
    def of(cls, spec: EnvironmentSpec) -> "CategoricalPolicy":
        """Returns the head for the actions of `spec`, which must be discrete."""
        if not isinstance(spec.actions, specs.DiscreteArray):
            raise SettingError(
                f"this agent needs discrete actions, got {spec.actions}; choose an environment "
                "that has them, such as gym:CartPole-v1, or another agent: PPO takes any"
            )
        return cls(spec.actions.num_values)

    def __call__(self, features: Array) -> Categorical:
        init = Orthogonal(self.scale)
        return Categorical(hk.Linear(self.num_actions, w_init=init)(features))


class NormalPolicy(Settings):
    """A normal distribution over continuous actions.

    Where actions have finite bounds, mean and deviation are in units of half their range.
    """

    actions: specs.Array
    scale: NonNegative = 0.01  # small, so the first means are near the middle
    std: Positive = 1.0  # of the first policy
    dependent: bool = False  # whether the deviation depends on the state

    def __call__(self, features: Array) -> Normal:
        centre, half_range = bounds(self.actions, finite=False)
        init = Orthogonal(self.scale)
        mean = hk.Linear(centre.size, w_init=init)(features)
        if self.dependent:
            log_std = np.float32(np.log(self.std)) + hk.Linear(centre.size, w_init=init)(features)
        else:
            constant = hk.initializers.Constant(np.log(self.std))
            log_std = hk.get_parameter("log_std", centre.shape, init=constant)
        return Normal(centre + half_range * mean, log_std + np.log(half_range))


class TanhNormalPolicy(Settings):
    """A normal distribution squashed to the bounds of continuous actions."""

    actions: specs.BoundedArray
    log_std_min: float = -5.0
    log_std_max: float = 2.0

    def __call__(self, features: Array) -> TanhNormal:
        centre, half_range = bounds(self.actions, finite=True)
        init = hk.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")
        mean = hk.Linear(centre.size, w_init=init)(features)
        log_std = jnp.tanh(hk.Linear(centre.size, w_init=init)(features))
        middle = 0.5 * (self.log_std_max + self.log_std_min)
        log_std = middle + 0.5 * (self.log_std_max - self.log_std_min) * log_std
        return TanhNormal(mean, log_std, jnp.asarray(centre), jnp.asarray(half_range))


class TanhPolicy(Settings):
    """One continuous action within its bounds."""

    actions: specs.BoundedArray

    def __call__(self, features: Array) -> Array:
        centre, half_range = bounds(self.actions, finite=True)
        init = hk.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")
        return centre + half_range * jnp.tanh(hk.Linear(centre.size, w_init=init)(features))


class MultiCategoricalPolicy(Settings):
    """Distributions over several whole numbers at once, each within its bounds."""

    actions: specs.BoundedArray
    scale: NonNegative = 0.01  # small, so the first policy is near uniform

    def __call__(self, features: Array) -> MultiCategorical:
        shape = self.actions.shape
        low, high = (
            np.broadcast_to(bound, shape).astype(np.int64)
            for bound in (self.actions.minimum, self.actions.maximum)
        )
        counts = high - low + 1
        most = int(counts.max())
        if most > MOST:
            raise SettingError(
                f"a policy over whole numbers takes at most {MOST} of them, got {self.actions}; "
                "wrap the environment in one that has fewer"
            )
        logits = hk.Linear(len(low) * most, w_init=Orthogonal(self.scale))(features)
        own = np.arange(most) < counts[:, None]
        logits = jnp.where(own, logits.reshape(-1, most), ILLEGAL)
        return MultiCategorical(logits, jnp.asarray(low, jnp.int32))


MOST = 1000  # numbers that a component of a discrete action may be


class JointPolicy(Settings):
    """A distribution for each part of a nested action."""

    actions: Any  # specs, nested
    std: Positive = 1.0  # as of `NormalPolicy`

    def __call__(self, features: Array) -> Joint:
        def one(path, part):
            with hk.name_scope(jax.tree_util.keystr(path, simple=True, separator="_")):
                return policy_for(part, self.std)(features)  # each with a deviation of its own

        return Joint(jax.tree_util.tree_map_with_path(one, self.actions))


def policy(spec: EnvironmentSpec, std: float = 1.0) -> Callable[[Array], Any]:
    """Returns the policy head for the actions of an environment, of any kind.

    Args:
      spec: of the environment.
      std: of the first policy where actions are continuous, in units of half their range.

    Raises:
      SettingError: there is none for some.
    """
    return policy_for(spec.actions, std)


def policy_for(actions: Any, std: float = 1.0) -> Callable[[Array], Any]:
    """Returns the policy head for actions: discrete ones, vectors of whole or real numbers, nests.

    Raises:
      SettingError: there is none for some.
    """
    if isinstance(actions, specs.DiscreteArray):
        return CategoricalPolicy(actions.num_values)
    if not isinstance(actions, specs.Array):
        return JointPolicy(actions, std)
    whole = np.issubdtype(actions.dtype, np.integer) and isinstance(actions, specs.BoundedArray)
    if whole and len(actions.shape) == 1 and actions.shape[0]:
        return MultiCategoricalPolicy(actions)
    bounds(actions, finite=False)
    return NormalPolicy(actions, std=std)


def bounds(actions: Any, finite: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns centre and half range of continuous actions, [n]; 0 and 1 where they have no bounds.

    Raises:
      SettingError: actions are not a vector of real numbers, or must have bounds and have none.
    """
    vector = isinstance(actions, specs.Array) and not isinstance(actions, specs.DiscreteArray)
    wrong = not vector or len(actions.shape) != 1 or not actions.shape[0]
    if wrong or not np.issubdtype(actions.dtype, np.floating):
        raise SettingError(
            f"this policy needs actions that are a vector of real numbers, got {actions}; choose "
            "an environment that has them, such as gym:Pendulum-v1, or another agent: PPO takes "
            "any that are discrete, vectors, or nests of these"
        )
    infinite = np.full(actions.shape, np.inf)
    low = np.broadcast_to(getattr(actions, "minimum", -infinite), actions.shape)
    high = np.broadcast_to(getattr(actions, "maximum", infinite), actions.shape)
    most = np.finfo(np.float32).max  # as the word of some for infinity
    bounded = (low > -most) & (high < most)
    if finite and not bounded.all():
        raise SettingError(
            f"this policy needs actions with finite bounds, got {actions}; wrap the environment in "
            "one that scales actions to [-1, 1]"
        )
    low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
    half_range = np.where(high > low, (high - low) / 2, 1.0)  # of one value, whatever is clipped
    return ((low + high) / 2).astype(np.float32), half_range.astype(np.float32)


def uniform(actions: specs.BoundedArray, key: Key) -> Array:
    """Returns a random action anywhere within its bounds, [n]."""
    centre, half_range = bounds(actions, finite=True)
    return centre + half_range * jax.random.uniform(key, centre.shape, minval=-1.0)


class ActionReturns(Settings):
    """What a critic says of the return of each of n discrete actions, [n].

    Wang et al., 2016, "Dueling network architectures for deep reinforcement learning", equation 9,
    where it is `duelling`: what is said of the state plus advantages, whose mean is 0.
    """

    num_actions: PositiveInt
    critic: Critic = Scalar()
    duelling: bool = False
    noise: NonNegative = 0.0  # of weights, at first; see `NoisyLinear`

    def __call__(self, features: Array) -> Returns:
        return self.critic(features, self.layer)

    def layer(self, features: Array, size: int) -> Array:
        """Returns so many numbers for each action, [..., n, size]."""
        init = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
        said = linear(self.num_actions * size, init, self.noise)(features)
        said = said.reshape(*features.shape[:-1], self.num_actions, size)
        if not self.duelling:
            return said
        state = linear(size, Orthogonal(1.0), self.noise)(features)[..., None, :]
        return state + said - said.mean(axis=-2, keepdims=True)


class ValueReturns(Settings):
    """What a critic says of the return from a state."""

    critic: Critic = Scalar()
    scale: NonNegative = 1.0

    def __call__(self, features: Array) -> Returns:
        init = Orthogonal(self.scale)
        return self.critic(features, lambda features, size: hk.Linear(size, w_init=init)(features))


class ActionValues(Settings):
    """A value for each of n discrete actions, [n]."""

    num_actions: PositiveInt

    @classmethod
    def of(cls, spec: EnvironmentSpec) -> Self:
        """Returns the head for the actions of `spec`, which must be discrete."""
        return cls(CategoricalPolicy.of(spec).num_actions)

    def __call__(self, features: Array) -> Array:
        init = hk.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
        return hk.Linear(self.num_actions, w_init=init)(features)


class DuellingActionValues(ActionValues):
    """Values of actions as the value of the state plus advantages, whose mean is 0.

    Wang et al., 2016, "Dueling network architectures for deep reinforcement learning", equation 9.
    """

    def __call__(self, features: Array) -> Array:
        advantage = super().__call__(features)
        return Value()(features) + advantage - advantage.mean()


class Value(Settings):
    """A state value."""

    scale: NonNegative = 1.0

    def __call__(self, features: Array) -> Array:
        init = Orthogonal(self.scale)
        return jnp.squeeze(hk.Linear(1, w_init=init)(features), axis=-1)
