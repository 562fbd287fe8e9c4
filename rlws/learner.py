"""Learning: a loss for one trajectory, and the update that applies it to a batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlws.networks import Network
from rlws.settings import SettingError, Settings
from rlws.types import Array, Key, Metrics, Params, Trajectory


class LearnerState(NamedTuple):
    """Everything a learner carries from update to update."""

    params: Params  # what the optimiser changes and the actor reads
    opt_state: Any
    extra: Any = ()  # whatever else the algorithm keeps: target parameters, moving averages
    updates: Array | int = 0


class Learner(Settings):
    """Improves parameters from batches of trajectories. Subclasses write `loss`.

    A loss is written for ONE trajectory and may average over the batch with `jax.lax.pmean` along
    the axis named "batch". Algorithms with another kind of update override `update`.
    """

    network: Network
    optimizer: optax.GradientTransformation

    def init(self, key: Key) -> LearnerState:
        """Returns the initial state; `super().init(key)._replace(extra=...)` adds to it."""
        params = self.network.init(key)
        return LearnerState(params, self.optimizer.init(params), (), jnp.int32(0))

    def loss(
        self, params: Params, trajectory: Trajectory, key: Key, state: LearnerState
    ) -> tuple[Array, Metrics]:
        """Returns what to minimise on one trajectory, and metrics.

        Either may be a scalar, averaged over the trajectories of the batch, or have an entry for
        each step ([T]), averaged over the steps of the whole batch that have weight. Gradients flow
        through `params` only; `state` offers the rest (`extra`, `updates`) as constants.
        """
        raise NotImplementedError

    def update(
        self, state: LearnerState, batch: Trajectory, key: Key
    ) -> tuple[LearnerState, Metrics]:
        """Takes one gradient step on a batch of trajectories (leaves [B, T, ...])."""
        gradient = jax.grad(self.batch_loss, has_aux=True)
        grads, metrics = gradient(state.params, batch, key, state)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        squares = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(grads)]
        metrics["gradient_norm"] = jnp.sqrt(sum(squares))
        return state._replace(
            params=params, opt_state=opt_state, updates=state.updates + 1
        ), metrics

    def batch_loss(
        self, params: Params, batch: Trajectory, key: Key, state: LearnerState
    ) -> tuple[Array, Metrics]:
        """Returns the mean loss and metrics of a batch; padding (weight 0) changes neither."""
        keys = jax.random.split(key, batch.reward.shape[0])
        batch = jax.vmap(Trajectory.masked)(batch)
        per_trajectory = jax.vmap(self.loss, in_axes=(None, 0, 0, None), axis_name="batch")
        losses, metrics = per_trajectory(params, batch, keys, state)
        for name, value in {"loss": losses, **metrics}.items():
            if value.shape[1:] not in ((), batch.reward.shape[1:]):
                raise SettingError(
                    f"{name} of one trajectory must have shape () or {batch.reward.shape[1:]}, one "
                    f"entry a step, got {value.shape[1:]}; squeeze or sum it"
                )
        real = batch.weight > 0
        mean = lambda x, weight: _mean(x, real if x.ndim == 2 else real.any(axis=1), weight)
        loss = mean(losses, batch.weight if losses.ndim == 2 else 1.0)
        metrics = {name: mean(value, 1.0) for name, value in metrics.items()}
        return loss, metrics | {"loss": loss}


def _mean(x: Array, real: Array, weight: Array | float) -> Array:
    # Weighted terms over an unweighted count: importance weights must not cancel out.
    return jnp.sum(jnp.where(real, weight * x, 0.0)) / jnp.maximum(real.sum(), 1)


def standardise(x: Array, weight: Array, axis_name: str = "batch") -> Array:
    """Returns x [T] with mean 0 and deviation 1 over the steps of the batch that have weight."""
    real = weight > 0
    total = lambda y: jax.lax.psum(jnp.sum(jnp.where(real, y, 0.0)), axis_name)
    count = jnp.maximum(total(1.0), 1.0)
    centred = x - total(x) / count
    # Once more: what rounding left of equal numbers must not be blown up to deviation 1.
    centred = centred - total(centred) / count
    return centred / (jnp.sqrt(total(centred**2) / count) + 1e-8)
