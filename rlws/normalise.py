"""Normalised observations and scaled rewards, for any agent.

Both keep running statistics of what the agent learned from. Those of observations stand among the
parameters, so that whoever acts uses what the learner uses, in every trainer.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from rlws.actor import Actor
from rlws.agent import Agent
from rlws.networks import masks
from rlws.settings import Fraction, Positive
from rlws.terms.moments import Moments
from rlws.terms.term import Term
from rlws.types import EnvironmentSpec, Observation

STATISTICS = "observation_statistics"  # their entry among the parameters


def normalise_observations(agent: Agent, spec: EnvironmentSpec, limit: float = 10.0) -> Agent:
    """Returns the agent that sees observations with mean 0 and deviation 1, clipped at `limit`.

    Only real numbers are normalised, and no `action_mask`. Statistics are those up to the last
    update, in acting as in learning, so an update and the acting it learns from agree; evaluation
    does not change them.
    """
    term = ObservationStatistics(spec.observations, limit)
    return dataclasses.replace(
        agent,
        actor=Normalised(agent.actor, term),
        evaluator=Normalised(agent.evaluator, term),
        learner=agent.learner.with_terms(term),
    )


class ObservationStatistics(Term):
    """Keeps statistics of all observations that were acted on, and normalises batches by them."""

    name = STATISTICS

    observations: Any  # their spec, maybe nested
    limit: Positive = 10.0  # deviations

    def init(self, key, params):
        def moments(path, spec):
            real = jnp.issubdtype(spec.dtype, jnp.floating)
            is_mask = path[:1] == (jax.tree_util.DictKey(masks.KEY),)
            return Moments.of(spec.shape) if real and not is_mask else None

        return {STATISTICS: jax.tree_util.tree_map_with_path(moments, self.observations)}, ()

    def prepare(self, params, state, batch):
        statistics = params[STATISTICS]
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        weight = flat(batch.weight)

        def update(moments, x):
            return moments and moments.update(flat(x[:, :-1]), weight)

        updated = jax.tree.map(update, statistics, batch.observation, is_leaf=_is_moments)
        batch = batch._replace(observation=self.normalise(statistics, batch.observation))
        return batch, {STATISTICS: updated}, state

    def normalise(self, statistics: Any, observation: Observation) -> Observation:
        """Returns an observation, with any leading axes, by these statistics."""

        def one(moments, x):
            if moments is None:
                return x
            align = lambda y: y.reshape((1,) * (x.ndim - y.ndim) + y.shape)
            centred = (x - align(moments.mean)) - align(moments.mean_low)
            return jnp.clip(centred / align(moments.deviation()), -self.limit, self.limit)

        return jax.tree.map(one, statistics, observation, is_leaf=_is_moments)


class Normalised(Actor):
    """An actor that sees normalised observations."""

    actor: Actor
    statistics: ObservationStatistics

    def initial_state(self):
        return self.actor.initial_state()

    def select_action(self, params, timestep, state, key):
        observation = self.statistics.normalise(params[STATISTICS], timestep.observation)
        timestep = timestep._replace(observation=observation)
        return self.actor.select_action(params, timestep, state, key)


def scale_rewards(agent: Agent, discount: float) -> Agent:
    """Returns the agent that learns from rewards divided by the deviation of discounted returns.

    Returns are those of the stream, R_t = r_t + discount * R_{t-1} within an episode. Rewards are
    not shifted, and those of evaluation and of reports are the environment's own.

    Engstrom et al., 2020, "Implementation matters in deep policy gradients", appendix A.1.
    """
    return dataclasses.replace(
        agent,
        actor=Returns(agent.actor, discount),
        learner=agent.learner.with_terms(RewardScale(discount)),
    )


class Returns(Actor):
    """An actor that records the discounted return so far, as the extra `discounted_return`."""

    actor: Actor
    discount: Fraction

    def initial_state(self):
        return self.actor.initial_state(), jnp.float32(0)

    def select_action(self, params, timestep, state, key):
        inner, before = state
        # On FIRST the reward is 0: what an episode ended with must not reach the next.
        now = jnp.where(timestep.first(), 0.0, self.discount * before + timestep.reward)
        action, inner, extras = self.actor.select_action(params, timestep, inner, key)
        return action, (inner, now), {**extras, "discounted_return": now}


class RewardScale(Term):
    """Divides rewards by the running deviation of the returns that `Returns` records."""

    name = "reward_scale"

    discount: Fraction

    def init(self, key, params):
        return {}, Moments.of(())

    def prepare(self, params, state, batch):
        extras = dict(batch.extras)
        # After each step, as the last return of an episode stands in a row that is no experience.
        returns = self.discount * extras.pop("discounted_return") + batch.reward
        state = state.update(returns.ravel(), batch.weight.ravel())
        return batch._replace(reward=batch.reward / state.deviation(), extras=extras), {}, state


def _is_moments(x):
    return x is None or isinstance(x, Moments)
