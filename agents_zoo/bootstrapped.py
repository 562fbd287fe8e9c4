"""Bootstrapped DQN with randomised priors: many networks, one of which acts in an episode.

Osband et al., 2016, "Deep exploration via bootstrapped DQN". https://arxiv.org/abs/1602.04621
Osband et al., 2018, "Randomized prior functions for deep reinforcement learning".
https://arxiv.org/abs/1806.03335

Minimises the mean over members k of DQN's loss, each towards a target network of its own,

    mean_k(m_k (r + gamma max_a Q'_k(s', a) - Q_k(s, a))^2 / 2),   Q_k = f_k + prior_scale p_k

where p_k is a network that is drawn at first and never learns, and m_k, drawn when a step is
experienced, says whether member k learns from it (2016, algorithm 1; 2018, algorithm 1).
Departures from the papers: those of DQN; members share no layers, as in 2018; actions of an
evaluation are the best by the mean of all, not by their votes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from agents_zoo import dqn
from rlws import networks
from rlws.actor import EpsilonGreedy
from rlws.networks import MLP, Backbone, Network
from rlws.settings import Fraction, NonNegative, Positive, PositiveInt


class Config(dqn.Config):
    """Settings of bootstrapped DQN."""

    backbone: Backbone = MLP((50, 50), "relu")  # of each member, and of its prior
    members: PositiveInt = 20
    prior_scale: NonNegative = 3.0
    share: Fraction = 1.0  # of all steps that a member learns from; 0.5: 2016's, beside 1
    learning_rate: Positive = 1e-3
    double: bool = False
    epsilon_start: Fraction = 0.0
    epsilon_end: Fraction = 0.0

    def make(self, spec):
        agent = super().make(spec)
        network = networks.with_prior(agent.learner.network, self.prior_scale)
        own = {"network": network, "members": self.members, "share": self.share}
        return dataclasses.replace(
            agent,
            actor=OneOfMany(**vars(agent.actor) | own),
            learner=Bootstrapped(network, agent.learner.optimizer, self),
            evaluator=EpsilonGreedy(averaged(network), 0.0, 0.0, 1, greedy=True),
        )


def averaged(network: Network) -> Network:
    """Returns the network that says the mean of what all members do."""

    def apply(params, observation, *key):
        said = jax.vmap(lambda params: network.apply(params, observation, *key))(params)
        return jax.tree.map(lambda x: x.mean(axis=0), said)

    return network._replace(apply=apply)


class OneOfMany(EpsilonGreedy):
    """Acts by one member, drawn anew for each episode; records who may learn from it."""

    members: PositiveInt = 1
    share: Fraction = 1.0

    def initial_state(self):
        return super().initial_state(), jnp.int32(0)

    def select_action(self, params, timestep, state, key):
        own, member = state
        act_key, draw_key, mask_key = jax.random.split(key, 3)
        drawn = jax.random.randint(draw_key, (), 0, self.members, jnp.int32)
        member = jnp.where(timestep.first(), drawn, member)
        one = jax.tree.map(lambda x: x[member], params)
        action, own, extras = super().select_action(one, timestep, own, act_key)
        if self.share < 1:
            extras["mask"] = jax.random.bernoulli(mask_key, self.share, (self.members,))
        return action, (own, member), extras


class Bootstrapped(dqn.DQN):
    """Improves many networks at once; leaves of parameters are [members, ...]."""

    config: Config

    def init_params(self, key):
        return jax.vmap(self.network.init)(jax.random.split(key, self.config.members))

    def value(self, params, trajectory):
        best = lambda params: self.network.unroll(params, trajectory).q.max(axis=-1)
        return jax.vmap(best)(params).mean(axis=0)  # as targets are of each member's own best

    def loss(self, params, trajectory, key, state):
        def one(params, target, key):
            return super(Bootstrapped, self).loss(
                params, trajectory, key, state._replace(extra=target)
            )

        keys = jax.random.split(key, self.config.members)
        losses, metrics = jax.vmap(one)(params, state.extra, keys)  # [members, T]
        if self.config.share < 1:
            losses *= trajectory.extras["mask"].T
        disagreement = metrics["value"].std(axis=0)
        means = jax.tree.map(lambda x: x.mean(axis=0), metrics)
        return losses.mean(axis=0), {**means, "disagreement": disagreement}
