"""Prioritised experience replay, proportional.

Schaul et al., 2016, "Prioritized experience replay". https://arxiv.org/abs/1511.05952
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from rlws.adders import sum_tree
from rlws.adders.replay import LARGE, Replay, ReplayState
from rlws.settings import Fraction, NonNegative, Positive, Range
from rlws.types import Array, Key, Metrics, Trajectory


class PrioritisedState(NamedTuple):
    """A replay, and a priority for each of its starts."""

    replay: ReplayState
    tree: tuple[Array, ...]  # of priorities to the power of the exponent, by place in `starts`
    maximum: Array  # the largest priority so far
    sampled: Array  # [batch], places in `starts` of the last batch


class PrioritisedReplay(Replay):
    """Batches in which trajectory i has probability p_i^exponent / sum_j p_j^exponent.

    The learner feeds the priorities back as the metric `priority`, usually |TD error|; until then a
    trajectory has the largest priority so far. `weight` is multiplied by the importance weight
    (N P(i))^-beta, divided by the largest of the batch (section 3.4 of the paper). Priorities stay
    with trajectories: nothing fed back reaches one that has been overwritten.
    """

    exponent: NonNegative = 0.6  # alpha; 0: uniform
    beta: Fraction = 0.4  # of importance weights, at the beginning
    # Environment steps until beta is 1; None: it stays.
    beta_steps: Annotated[int, Range(1, LARGE // 2)] | None = None
    epsilon: Positive = 1e-6  # added to priorities, so that none is 0

    def init(self, row, num_envs):
        replay = super().init(row, num_envs)
        sampled = jnp.zeros(self.batch_size, jnp.int32)
        return PrioritisedState(replay, sum_tree.init(len(replay.starts)), jnp.float32(1), sampled)

    def add(self, state, rows, length, timestep):
        before, after = state.replay, super().add(state.replay, rows, length, timestep)
        block_length, num_envs = rows.timestep.step_type.shape
        size = len(before.starts)

        gone = before.tail + jnp.arange((block_length + 1) * num_envs)
        # One whose place a new one takes is gone without a word.
        left = (gone < after.tail) & (gone + size >= after.begun)
        new = before.begun + jnp.arange(block_length * num_envs)
        number, counts = jnp.append(gone, new), jnp.append(left, new < after.begun)
        index = jnp.where(counts, number % size, sum_tree.NOWHERE)
        highest = state.maximum**self.exponent
        priority = jnp.append(jnp.zeros(len(gone)), jnp.full(len(new), highest))
        # Both at once: XLA would copy the tree to write it a second time.
        return state._replace(replay=after, tree=sum_tree.write(state.tree, index, priority))

    def ready(self, state):
        return super().ready(state.replay)

    def sample(self, state: PrioritisedState, key: Key) -> tuple[PrioritisedState, Trajectory]:
        total = sum_tree.total(state.tree)
        # One from each of so many equal shares of the total: less variance, same probabilities.
        share = (jnp.arange(self.batch_size) + jax.random.uniform(key, (self.batch_size,))) * (
            total / self.batch_size
        )
        index, priority = sum_tree.find(state.tree, share)
        count = state.replay.begun - state.replay.tail
        weight = (count * jnp.maximum(priority, 1e-30) / total) ** -self._beta(state)
        batch = self.gather(state.replay, index, weight / weight.max())
        return state._replace(replay=self.taken(state.replay, index), sampled=index), batch

    def _beta(self, state: PrioritisedState) -> Array | float:
        if self.beta_steps is None:
            return self.beta
        num_envs = state.replay.rows.timestep.step_type.shape[1]
        progress = jnp.minimum(state.replay.written * (num_envs / self.beta_steps), 1.0)
        return self.beta + (1.0 - self.beta) * progress

    def feedback(self, state: PrioritisedState, priority: Array) -> PrioritisedState:
        known = jnp.isfinite(priority)  # one that is not would spoil every sum above it
        priority = jnp.where(known, jnp.abs(priority) + self.epsilon, 0.0)
        index = jnp.where(known, state.sampled, sum_tree.NOWHERE)
        tree = sum_tree.write(state.tree, index, priority**self.exponent)
        return state._replace(tree=tree, maximum=jnp.maximum(state.maximum, priority.max()))

    def metrics(self, state: PrioritisedState) -> Metrics:
        return {"largest_priority": state.maximum, **super().metrics(state.replay)}
