"""Critics: what a network says of a return, and how that is drawn to a target.

A return is random. A critic says a distribution of it: numbers called `atoms`, each with a
probability. Whatever the critic, an algorithm does the same with them: adds rewards, discounts,
takes means, pools those of several critics, mixes those of actions. So targets are alike for all,
and only a critic knows how to learn one (`Critic.distance`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from rlws.numerics.returns import n_step_returns
from rlws.settings import NonNegative, Positive, PositiveInt, Range, SettingError, Settings
from rlws.types import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Returns:
    """Distributions over returns, of N atoms each.

    Attributes:
      atoms: [..., N].
      logits: unnormalised log-probabilities of the atoms, [..., N]; None: all are as likely.
      inner: what its critic needs to learn, beside atoms, [..., N].
      critic: which has said it; None: nobody, so that it can only be a target.
    """

    atoms: Array
    logits: Array | None = None
    inner: Array | None = None
    critic: Any = dataclasses.field(default=None, metadata={"static": True})

    def probabilities(self) -> Array:
        """Returns those of the atoms, [..., N]."""
        if self.logits is None:
            return jnp.full_like(self.atoms, 1.0 / self.atoms.shape[-1])
        return jax.nn.softmax(self.logits)

    def mean(self) -> Array:
        """Returns expected returns, [...]."""
        if self.logits is None:
            return self.atoms.mean(axis=-1)
        return jnp.sum(self.probabilities() * self.atoms, axis=-1)

    def deviation(self) -> Array:
        """Returns standard deviations, [...]."""
        centred = jnp.square(self.atoms - self.mean()[..., None])
        return jnp.sqrt(jnp.sum(self.probabilities() * centred, axis=-1))

    def loss(self, target: "Returns") -> Array:
        """Returns how far these are from targets, which are constants, [...]."""
        return self.critic.distance(self, jax.lax.stop_gradient(target))

    def surprise(self, target: "Returns") -> Array:
        """Returns how little targets were expected, [...]: what priorities are made of."""
        return self.critic.surprise(self, target)

    def take(self, index: Array) -> Self:
        """Returns those of one of n, such as an action: [..., n] by indices [...]."""
        # By comparison: the gradient of an index is a scatter, which on a CPU is a loop.
        number = jax.lax.broadcasted_iota(jnp.int32, self.atoms.shape, self.atoms.ndim - 2)
        chosen = index[..., None, None] == number
        pick = lambda x: jnp.sum(jnp.where(chosen, x, 0.0), axis=-2)
        return jax.tree.map(pick, self)

    def lowest(self) -> Self:
        """Returns those of lowest mean among n: [..., n] to [...]."""
        return self.take(jnp.argmin(self.mean(), axis=-1))

    def among(self, index: Array) -> Self:
        """Returns those of m of n, [..., n] by indices [m] to [..., m]."""
        return jax.tree.map(lambda x: x[..., index, :], self)

    def for_each(self) -> Self:
        """Returns the same for each of n others, [...] to [..., 1]."""
        return jax.tree.map(lambda x: x[..., None, :], self)

    def moved(self, shift: Array, scale: Array | float = 1.0) -> Self:
        """Returns the distributions of shift + scale * return; both are [...], or one for all."""
        each = self.atoms.shape[:-1]
        shift, scale = (jnp.broadcast_to(x, each)[..., None] for x in (shift, scale))
        return self._of(shift + scale * self.atoms, self.logits)

    def mixed(self, weights: Array) -> Self:
        """Returns a mixture of n, [..., n], that draws each with a probability, [..., n]."""
        log = jnp.log(jnp.maximum(weights, 1e-30))[..., None]
        flat = lambda x: x.reshape(*x.shape[:-2], -1)
        return self._of(flat(self.atoms), flat(log + self._log_probabilities()))

    def soft(self, q: Array, temperature: float) -> Self:
        """Returns those of softmax(q / temperature) over n, [..., n], with its entropy as reward.

        Haarnoja et al., 2017, "Reinforcement learning with deep energy-based policies", equation 3.
        """
        log_policy = jax.nn.log_softmax(q / temperature)
        policy = jnp.exp(log_policy)
        entropy = -jnp.sum(policy * log_policy, axis=-1)
        return self.mixed(policy).moved(temperature * entropy)

    def without_top(self, count: int) -> Self:
        """Returns the mixture of n, [..., n], without the highest `count` atoms of each.

        Kuznetsov et al., 2020, "Controlling overestimation bias with truncated mixture of
        continuous distributional quantile critics", equation 11.
        """
        size, atoms = self.atoms.shape[-2:]
        pooled = jnp.sort(self.atoms.reshape(*self.atoms.shape[:-2], -1), axis=-1)
        return self._of(pooled[..., : size * (atoms - count)], None)

    def after(self, reward: Array, discount: Array, n: int, trace: Array | float = 1.0) -> Self:
        """Returns what is returned from each step on, if these, [T], are what follows each.

        Arguments are those of `n_step_returns`.
        """
        along = jax.vmap(n_step_returns, in_axes=(None, None, 1, None, None), out_axes=1)
        atoms = along(reward, discount, self.atoms, n, trace)
        if self.logits is None:
            return self._of(atoms, None)
        # Of the observation that is bootstrapped from: neither rewarded nor discounted.
        plain = along(jnp.zeros_like(reward), jnp.ones_like(discount), self.logits, n, trace)
        return self._of(atoms, plain)

    def _log_probabilities(self):
        if self.logits is None:
            return jnp.full_like(self.atoms, -math.log(self.atoms.shape[-1]))
        return jax.nn.log_softmax(self.logits)

    def _of(self, atoms, logits):
        return type(self)(atoms, logits)


def returns(outputs: Any, name: str, critic: "Critic | None" = None) -> Returns:
    """Returns what a network says of returns by its head `name`.

    Where that gives numbers, those, and `critic` is how they are learned.
    """
    found = getattr(outputs, f"{name}_returns", None)
    return certain(getattr(outputs, name), critic) if found is None else found


def certain(value: Array, critic: "Critic | None" = None) -> Returns:
    """Returns the distributions of returns that are known, [...]."""
    return Returns(value[..., None], critic=critic)


# From features [..., f] and a size, to numbers [..., m, size] or [..., size]: the last layer.
Layer = Callable[[Array, int], Array]


class Critic(Settings):
    """Settings of what is said of a return."""

    def __call__(self, features: Array, layer: Layer) -> Returns:
        """Returns what is said of each of m returns, [m] (or of one, []), of features [f]."""
        raise NotImplementedError

    def distance(self, said: Returns, target: Returns) -> Array:
        """Returns the loss [...] of what this critic said, [..., N], for targets [..., M]."""
        raise NotImplementedError

    def surprise(self, said: Returns, target: Returns) -> Array:
        """Returns how little targets were expected, [...]: by default, how far means are apart."""
        return jnp.abs(target.mean() - said.mean())


SCALES: dict[str, tuple[Callable, Callable]] = {
    "linear": (lambda x: x, lambda x: x),
    # Hafner et al., 2023, "Mastering diverse domains through world models", equation 9.
    "symlog": (
        lambda x: jnp.sign(x) * jnp.log1p(jnp.abs(x)),
        lambda x: jnp.sign(x) * jnp.expm1(jnp.abs(x)),
    ),
    # Pohlen et al., 2018, "Observe and look further", proposition A.2; epsilon is 0.001.
    "sqrt": (
        lambda x: jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + 1e-3 * x,
        lambda x: (
            jnp.sign(x)
            * (jnp.square((jnp.sqrt(1.0 + 4e-3 * (jnp.abs(x) + 1.0 + 1e-3)) - 1.0) / 2e-3) - 1.0)
        ),
    ),
}
Scale = Literal["linear", "symlog", "sqrt"]


class Scalar(Critic):
    """A number, its mean, by regression."""

    error: Literal["squared", "huber"] = "squared"
    scale: Scale = "linear"  # in which it is said and learned

    def __call__(self, features, layer):
        said = layer(features, 1)
        inner = None if self.scale == "linear" else said
        return Returns(SCALES[self.scale][1](said), inner=inner, critic=self)

    def distance(self, said, target):
        error = self._error(said, target)
        return optax.huber_loss(error) if self.error == "huber" else optax.l2_loss(error)

    def surprise(self, said, target):
        return jnp.abs(self._error(said, target))  # on its scale

    def _error(self, said, target):
        inner = said.atoms if said.inner is None else said.inner
        return SCALES[self.scale][0](target.mean()) - inner[..., 0]


class Categorical(Critic):
    """A histogram, by cross-entropy (C51).

    Bellemare, Dabney and Munos, 2017, "A distributional perspective on reinforcement learning".
    https://arxiv.org/abs/1707.06887
    With `smoothing`, targets are normal distributions around atoms (HL-Gauss): Farebrother et al.,
    2024, "Stop regressing". https://arxiv.org/abs/2403.03950
    """

    size: Annotated[int, Range(2, 10_000)] = 51  # atoms, evenly spaced
    low: float = 0.0  # return of the lowest atom, on the scale below
    high: float = 100.0
    smoothing: NonNegative = 0.0  # deviation of targets, in spaces between atoms; 0.75 is theirs
    scale: Scale = "linear"  # on which atoms are evenly spaced

    def __post_init__(self):
        super().__post_init__()
        if not self.low < self.high:
            raise SettingError(
                f"Categorical.low must be below high, got {self.low} and {self.high}"
            )

    @property
    def space(self) -> float:
        """How far neighbouring atoms are from each other, on their scale."""
        return (self.high - self.low) / (self.size - 1)

    def __call__(self, features, layer):
        logits = layer(features, self.size)
        atoms = SCALES[self.scale][1](jnp.linspace(self.low, self.high, self.size))
        return Returns(jnp.broadcast_to(atoms, logits.shape), logits, critic=self)

    def distance(self, said, target):
        log = jax.nn.log_softmax(said.logits)
        return -jnp.sum(self.projected(target) * log, axis=-1)

    def surprise(self, said, target):
        """Returns the divergence of what was said from targets, which chance does not add to."""
        share = self.projected(target)
        return self.distance(said, target) + jnp.sum(jax.scipy.special.xlogy(share, share), axis=-1)

    def projected(self, target: Returns) -> Array:
        """Returns the probabilities of this critic's atoms, [..., size], that come closest."""
        inner = jnp.clip(SCALES[self.scale][0](target.atoms), self.low, self.high)
        place = (inner - self.low) / self.space  # in spaces from the lowest atom
        # From each target to each atom, [..., M, size].
        along = lambda size: jax.lax.broadcasted_iota(float, (*place.shape, size), place.ndim)
        if self.smoothing:
            edges = along(self.size + 1) - 0.5 - place[..., None]
            below = jax.scipy.stats.norm.cdf(edges / self.smoothing)
            share = jnp.diff(below, axis=-1)
            share = share / share.sum(axis=-1, keepdims=True)
        else:
            share = jnp.clip(1.0 - jnp.abs(along(self.size) - place[..., None]), 0.0, 1.0)
        return jnp.sum(target.probabilities()[..., None] * share, axis=-2)


class Quantiles(Critic):
    """Quantiles in the middle of equal shares, by quantile regression (QR-DQN).

    Dabney et al., 2018, "Distributional reinforcement learning with quantile regression".
    https://arxiv.org/abs/1710.10044
    """

    size: Annotated[int, Range(1, 10_000)] = 51
    kappa: NonNegative = 1.0  # up to which size errors are squared

    def __call__(self, features, layer):
        return Returns(layer(features, self.size), critic=self)

    def distance(self, said, target):
        levels = (jnp.arange(self.size) + 0.5) / self.size
        return quantile_loss(said.atoms, levels, target, self.kappa)


class ImplicitQuantiles(Critic):
    """Quantiles at levels that are drawn anew each time (IQN), or evenly spaced without a key.

    Dabney et al., 2018, "Implicit quantile networks for distributional reinforcement learning".
    https://arxiv.org/abs/1806.06923
    """

    size: PositiveInt = 32  # levels that are drawn; theirs are 64 of a target and 32 to act by
    embedding: PositiveInt = 64  # cosines that a level becomes
    kappa: Positive = 1.0

    def __call__(self, features, layer):
        key = hk.maybe_next_rng_key()
        levels = (jnp.arange(self.size) + 0.5) / self.size
        if key is not None:
            levels = jax.random.uniform(key, (self.size,))
        waves = jnp.cos(jnp.pi * jnp.outer(levels, jnp.arange(self.embedding)))
        gate = jax.nn.relu(hk.Linear(features.shape[-1], name="levels")(waves))
        said = layer(features[None] * gate, 1)[..., 0]  # [N, m], or [N]
        atoms = jnp.moveaxis(said, 0, -1)
        return Returns(atoms, inner=jnp.broadcast_to(levels, atoms.shape), critic=self)

    def distance(self, said, target):
        return quantile_loss(said.atoms, said.inner, target, self.kappa)


def quantile_loss(quantiles: Array, levels: Array, target: Returns, kappa: float) -> Array:
    """Returns the quantile Huber loss, [...]: its sum over quantiles, its mean over targets.

    Dabney et al., 2018, equation 10. Beyond `kappa` errors count by their size alone, divided by
    kappa, so that 0 is the loss of quantiles itself.

    Args:
      quantiles: [..., N].
      levels: of the quantiles, between 0 and 1, [..., N].
      target: [..., M].
      kappa: where squared errors end.
    """
    error = target.atoms[..., None, :] - quantiles[..., :, None]
    size = optax.huber_loss(error, delta=kappa) / kappa if kappa else jnp.abs(error)
    levels = jnp.broadcast_to(levels, quantiles.shape)
    loss = jnp.abs(levels[..., :, None] - (error < 0)) * size
    return jnp.sum(loss * target.probabilities()[..., None, :], axis=(-1, -2))
