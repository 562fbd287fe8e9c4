"""Learning: a loss for one trajectory, and the update that applies it to a batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax

from rlws.networks import Network, batch_norm
from rlws.numerics import answers, counts, means, vitals
from rlws.numerics.flat import flat_products
from rlws.numerics.steps import MEMBERS, delayed, now_and_then, part_way
from rlws.settings import Settings
from rlws.terms import several
from rlws.terms.term import Term
from rlws.types import Array, Key, Metrics, Params, Trajectory

__all__ = ["MEMBERS", "Learner", "LearnerState", "Loss", "delayed", "now_and_then", "part_way"]

# Of parameters, one trajectory, a key and the state: what to minimise, and metrics.
Loss = Callable[[Params, Trajectory, Key, "LearnerState"], tuple[Array, Metrics]]


class LearnerState(NamedTuple):
    """Everything a learner carries from update to update."""

    params: Params  # what the optimiser changes and the actor reads
    opt_state: Any
    extra: Any = ()  # whatever else the algorithm keeps: target parameters, moving averages
    updates: Array | int = 0
    terms: tuple = ()  # the state of each term


Learned = tuple[LearnerState, Metrics]  # what an update comes to


class Learner(Settings):
    """Improves parameters from batches of trajectories. Subclasses write `loss`.

    A loss is written for ONE trajectory and may look at the others along the axis named "batch":
    x is `psum(x * w, "batch") / psum(w, "batch")` on average, where w is 0 for trajectories that
    have no weight, which `pmean` would count. Algorithms with another kind of update override
    `update`, which may call `super().update` any number of times.
    """

    network: Network
    optimizer: optax.GradientTransformation
    terms: tuple[Term, ...] = dataclasses.field(default=(), kw_only=True)

    def init(self, key: Key) -> LearnerState:
        """Returns the initial state; `super().init(key)._replace(extra=...)` adds to it."""
        params, states = several.init(self.terms, key, self.init_params(key))
        return LearnerState(params, self.optimizer.init(params), (), jnp.int32(0), states)

    def init_params(self, key: Key) -> dict[str, Any]:
        """Returns the initial parameters, by default the network's."""
        return self.network.init(key)

    def begin(self, state: LearnerState, batch: Trajectory) -> LearnerState:
        """Returns the state of `init` with what depends on the shapes of batches.

        Called once, with a batch of zeros as `update` will see them (leaves [B, T, ...]), for
        learners that keep data of their own in `extra`. By default there is nothing to add.
        """
        return state

    def loss(
        self, params: Params, trajectory: Trajectory, key: Key, state: LearnerState
    ) -> tuple[Array, Metrics]:
        """Returns what to minimise on one trajectory, and metrics.

        Either may be a scalar, averaged over the trajectories of the batch, or have an entry for
        each step ([T]), averaged over the steps of the whole batch that have weight. Gradients flow
        through `params` only; `state` offers the rest (`extra`, `updates`) as constants. A metric
        named `priority`, a scalar, is not averaged: it goes back to the adder. Nor are the running
        `statistics` of `Network.train`, which become part of the parameters. Nor are `value` and
        its `target` [T], logged as `explained_variance`, and the `action` of a policy that has no
        entropy [T, n], logged as `action_spread` (see `vitals.py`). What every run logs (`steps`,
        `episode_...`, see `answers.py`) is no name for one.
        """
        raise NotImplementedError

    def value(self, params: Params, trajectory: Trajectory) -> Array | None:
        """Returns what the observations of a trajectory are worth, [T + 1]; None: no idea.

        Used to look into an agent, not to train it. By default the `value` head of the network, or
        the largest of its action values `q`.
        """
        outputs = self.network.unroll(params, trajectory)
        if hasattr(outputs, "value"):
            return outputs.value
        return outputs.q.max(axis=-1) if hasattr(outputs, "q") else None

    def learn(self, state: LearnerState, batch: Trajectory, key: Key) -> Learned:
        """Updates from a batch (leaves [B, T, ...]) as the adder gives it: what trainers call."""
        ignored = jnp.mean(batch.weight == 0)
        batch, kept, terms = self.prepare(state, batch)
        who = f"{type(self).__name__}.update"
        answer = self.update(state, batch, key)
        learned, metrics = answers.several(who, ("the state", "metrics"), answer)
        answers.same(f"{who}: the state", state, learned)
        answers.same("what terms keep", state.terms, terms)
        # What an update is called is one `update`, however many gradient steps it takes.
        return learned._replace(
            params=learned.params | kept, updates=counts.following(state.updates), terms=terms
        ), metrics | {"weight_0_fraction": ignored}

    def prepare(
        self, state: LearnerState, batch: Trajectory
    ) -> tuple[Trajectory, dict[str, Any], tuple]:
        """Returns what the update sees of a batch: without padding, as the terms change it.

        And the entries of the parameters that terms keep themselves, and the terms' next states.
        """
        batch = batch.masked()
        return several.prepare(self.terms, state.params, state.terms, batch)

    def update(self, state: LearnerState, batch: Trajectory, key: Key) -> Learned:
        """Takes one gradient step on a batch of trajectories (leaves [B, T, ...])."""
        return self.step(state, batch, key, self.loss)

    def step(self, state: LearnerState, batch: Trajectory, key: Key, loss: Loss) -> Learned:
        """Takes one gradient step on a batch by a loss, whose arguments are those of `loss`."""
        gradient = jax.grad(self.batch_loss, has_aux=True)
        grads, metrics = gradient(state.params, batch, key, state, loss)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        moved = optax.apply_updates(state.params, updates)
        params = batch_norm.merge(moved, metrics.pop("statistics", {}))
        metrics |= {"gradient_norm": means.norm(grads), "update_norm": means.norm(updates)}
        return state._replace(
            params=params, opt_state=opt_state, updates=counts.following(state.updates)
        ), metrics

    def batch_loss(
        self,
        params: Params,
        batch: Trajectory,
        key: Key,
        state: LearnerState,
        loss: Loss | None = None,
    ) -> tuple[Array, Metrics]:
        """Returns the mean loss of a batch, by default `loss`, terms included, and metrics.

        Padding (weight 0) changes neither, as `learn` has blanked it.
        """
        count, of_one = len(batch.reward), loss or self.loss
        who = f"{type(self).__name__}.{getattr(of_one, '__name__', 'loss')}"
        # Terms draw apart from the loss, which must not change because of them.
        own_key, term_key = jax.random.split(key)
        keys = jax.random.split(own_key, count), jax.random.split(term_key, count)

        def one(params, trajectory, keys, state):
            own_key, term_key = keys
            answer = of_one(params, trajectory, own_key, state)
            loss, metrics = answers.several(who, ("what to minimise", "metrics"), answer)
            metrics = answers.metrics(who, metrics)
            more, told = several.losses(self.terms, params, trajectory, term_key, state)
            return {"loss": loss} | more, told | metrics

        per_trajectory = jax.vmap(one, in_axes=(None, 0, 0, None), axis_name="batch")
        found, metrics = flat_products(per_trajectory)(params, batch, keys, state)
        # The same of all trajectories, as it is of all together.
        statistics = jax.tree.map(lambda x: x[0], metrics.pop("statistics", {}))
        batch_norm.check(params, statistics)
        signs = vitals.signs(metrics, batch.weight)
        means.check(found, metrics, batch.reward.shape)
        priority = {k: metrics.pop(k) for k in ("priority",) if k in metrics}
        parts = {k: means.mean(x, batch.weight) for k, x in found.items()}
        metrics = means.means(metrics, batch.weight > 0)
        back = priority | ({"statistics": statistics} if statistics else {})
        return jnp.asarray(sum(parts.values())), metrics | parts | signs | back

    def with_terms(self, *terms: Term) -> Self:
        """Returns the same learner with terms added to its loss, or its rewards."""
        return dataclasses.replace(self, terms=several.named_apart((*self.terms, *terms)))
