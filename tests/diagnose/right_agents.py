"""Thirteen agents that are right, and none of the zoo: the doctor must call none of them ill."""

import dataclasses
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agents_zoo import a2c, dqn, reinforce
from rlws import networks
from rlws.actor import EpsilonGreedy, PolicyActor
from rlws.adders import Replay, Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.networks import MLP, Backbone
from rlws.numerics.returns import generalised_advantages


def take(q, action):
    """Returns the entries [T, ...] of q [T, A, ...] that belong to actions [T]."""
    return jax.vmap(lambda row, i: row[i])(q, action)


def variant(module, learner):
    """Returns settings of a module's agent, with another learner of the same fields."""

    class Config(module.Config):
        def make(self, spec):
            agent = super().make(spec)
            old = agent.learner
            fields = {f.name: getattr(old, f.name) for f in dataclasses.fields(old)}
            return dataclasses.replace(agent, learner=learner(**fields))

    return Config


class LeaveOneOut(reinforce.Reinforce):
    """REINFORCE whose baseline is the mean return of the other episodes (Kool et al., 2019)."""

    def loss(self, params, trajectory, key, state):
        weight = trajectory.weight
        total = jnp.sum(self.config.discount ** jnp.arange(len(weight)) * trajectory.reward)
        real = jnp.any(weight > 0).astype(jnp.float32)
        count = jax.lax.psum(real, "batch")
        others = (jax.lax.psum(real * total, "batch") - total) / jnp.maximum(count - 1, 1)
        outputs = self.network.unroll(params, trajectory)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        log_prob = jnp.sum(weight * policy.log_prob(trajectory.action))
        entropy = jnp.sum(weight * policy.entropy())
        loss = -(total - others) * log_prob - self.config.entropy_cost * entropy
        return loss, {"entropy": entropy, "return_to_go": total}


class QLearner(dqn.DQN):
    """Q-learning from transitions, that says what following observations are worth."""

    def following(self, constant, state, trajectory):
        """Returns what is worth what follows each step, [T]."""
        raise NotImplementedError

    def loss(self, params, trajectory, key, state):
        q = self.network.unroll(params, trajectory.without_final()).q
        constant = jax.lax.stop_gradient(params)
        v_t = self.following(constant, state, trajectory)
        gamma = self.config.discount * trajectory.discount
        target = self.reward(constant, trajectory) + gamma * v_t
        value = take(q, trajectory.action)
        return optax.huber_loss(value - target), {"value": value, "target": target}

    def reward(self, constant, trajectory):
        return trajectory.reward


class ExpectedSarsa(QLearner):
    """The value of what follows is that of a policy that takes any action now and then."""

    def following(self, constant, state, trajectory):
        q = self.network.unroll_following(state.extra, trajectory).q
        return 0.95 * q.max(axis=-1) + 0.05 * q.mean(axis=-1)


class Munchausen(QLearner):
    """Soft Q-learning that adds the log-policy to rewards (Vieillard et al., 2020)."""

    tau, alpha = 0.003, 0.02

    def following(self, constant, state, trajectory):
        q = self.network.unroll_following(state.extra, trajectory).q
        return self.tau * jax.nn.logsumexp(q / self.tau, axis=-1)

    def reward(self, constant, trajectory):
        q = self.network.unroll(constant, trajectory.without_final()).q
        log_policy = jax.nn.log_softmax(q / self.tau)
        bonus = self.tau * jnp.clip(take(log_policy, trajectory.action), -1.0, 0.0)
        return trajectory.reward + self.alpha * bonus


class AdvantageWeighted(a2c.A2C):
    """Likelier is what was better than expected, exponentially (Peng et al., 2019)."""

    def loss(self, params, trajectory, key, state):
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        constant = jax.lax.stop_gradient(outputs.value)
        gamma = config.discount * trajectory.discount
        advantage = generalised_advantages(
            trajectory.reward, gamma, trajectory.trace(config.gae_lambda), constant
        )
        target = advantage + constant[:-1]
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        weight = jnp.minimum(jnp.exp(advantage / 0.2), 20.0)
        loss = -weight * policy.log_prob(trajectory.action)
        value_loss = optax.l2_loss(outputs.value[:-1] - target)
        return loss + value_loss, {"value": outputs.value[:-1], "target": target}


class BetterHalf(a2c.A2C):
    """The better half of steps, weighed by how good they were (V-MPO: Song et al., 2020)."""

    def loss(self, params, trajectory, key, state):
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        constant = jax.lax.stop_gradient(outputs.value)
        gamma = config.discount * trajectory.discount
        advantage = generalised_advantages(
            trajectory.reward, gamma, trajectory.trace(config.gae_lambda), constant
        )
        target, value = advantage + constant[:-1], outputs.value[:-1]
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        real = trajectory.weight > 0
        better = real & (advantage >= jnp.nanmedian(jnp.where(real, advantage, jnp.nan)))
        weight = jnp.where(better, jnp.exp(advantage / 0.5), 0.0)
        mean = lambda x: jax.lax.pmean(jnp.sum(x), "batch")
        weight = weight * mean(real) / jnp.maximum(mean(weight), 1e-8)
        loss = -jax.lax.stop_gradient(weight) * policy.log_prob(trajectory.action)
        return loss + optax.l2_loss(value - target), {"value": value, "target": target}


class Tethered(a2c.A2C):
    """Rewards pay for every nat that the policy is away from a slow copy of it."""

    cost = 0.01

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params))

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        return after._replace(
            extra=optax.incremental_update(after.params, state.extra, 0.05)
        ), metrics

    def loss(self, params, trajectory, key, state):
        log_prob = lambda params: jax.tree.map(
            lambda x: x[:-1], self.network.unroll(params, trajectory).policy
        ).log_prob(trajectory.action)
        away = jax.lax.stop_gradient(log_prob(params)) - log_prob(state.extra)
        reward = trajectory.reward - self.cost * away
        return super().loss(params, trajectory._replace(reward=reward), key, state)


class PengQ(Learner):
    """Q(lambda) of Peng and Williams (1996), on unrolls, without a target network."""

    config: AgentConfig

    def loss(self, params, trajectory, key, state):
        q = self.network.unroll(params, trajectory).q
        best = jax.lax.stop_gradient(q.max(axis=-1))
        gamma, trace = self.config.discount * trajectory.discount, trajectory.trace(0.8)
        target = best[:-1] + generalised_advantages(trajectory.reward, gamma, trace, best)
        value = take(q[:-1], trajectory.action)
        return optax.l2_loss(value - target), {"value": value, "target": target}


class PengQConfig(AgentConfig):
    backbone: Backbone = MLP()
    learning_rate: float = 1e-3
    discount: float = 0.99
    unroll_length: int = 16

    def make(self, spec) -> Agent:
        network = networks.compose(spec, self.backbone, q=networks.ActionValues.of(spec))
        return Agent(
            actor=EpsilonGreedy(network, 1.0, 0.2, 500),
            learner=PengQ(network, optax.adam(self.learning_rate), self),
            adder=Unrolls(self.unroll_length),
            evaluator=EpsilonGreedy(network, 0.0, 0.0, 1),
        )


class SlowCritic(a2c.A2C):
    """A2C that bootstraps from a slow copy of its parameters."""

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params))

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        slow = optax.incremental_update(after.params, state.extra, 0.05)
        return after._replace(extra=slow), metrics

    def loss(self, params, trajectory, key, state):
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        slow = self.network.unroll(state.extra, trajectory).value
        gamma = config.discount * trajectory.discount
        advantage = generalised_advantages(
            trajectory.reward, gamma, trajectory.trace(config.gae_lambda), slow
        )
        target, value = advantage + slow[:-1], outputs.value[:-1]
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        gain = jax.lax.stop_gradient(target - value)
        loss = -policy.log_prob(trajectory.action) * gain + optax.l2_loss(value - target)
        entropy = policy.entropy()
        metrics = {"value": value, "target": target, "entropy": entropy}
        return loss - config.entropy_cost * entropy, metrics


class DiscreteSAC(Learner):
    """SAC of actions that can be counted: expectations instead of draws (Christodoulou, 2019)."""

    config: AgentConfig

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params))

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        slow = optax.incremental_update(after.params, state.extra, self.config.target_rate)
        return after._replace(extra=slow), metrics

    def value(self, params, trajectory):
        outputs = self.network.unroll(params, trajectory)
        return (jax.nn.softmax(outputs.policy.logits) * self._least(outputs)).sum(axis=-1)

    def _least(self, outputs):
        return jnp.minimum(outputs.one, outputs.two)

    def loss(self, params, trajectory, key, state):
        config = self.config
        constant = jax.lax.stop_gradient(params)
        following = self.network.unroll_following(constant, trajectory).policy.logits
        q_t = self._least(self.network.unroll_following(state.extra, trajectory))
        soft = q_t - config.temperature * jax.nn.log_softmax(following)
        v_t = (jax.nn.softmax(following) * soft).sum(axis=-1)
        target = trajectory.reward + config.discount * trajectory.discount * v_t
        outputs = self.network.unroll(params, trajectory.without_final())
        ours = [take(q, trajectory.action) for q in (outputs.one, outputs.two)]
        critic_loss = sum(optax.l2_loss(q - target) for q in ours)
        log_policy = jax.nn.log_softmax(outputs.policy.logits)
        q = jax.lax.stop_gradient(self._least(outputs))
        gain = jnp.exp(log_policy) * (config.temperature * log_policy - q)
        return critic_loss + gain.sum(axis=-1), {"value": ours[0], "target": target}


class DiscreteSACConfig(AgentConfig):
    backbone: Backbone = MLP()
    learning_rate: float = 1e-3
    discount: float = 0.99
    temperature: float = 0.01
    target_rate: float = 0.05
    capacity: int = 10_000
    min_size: int = 100
    batch_size: int = 32
    period: int = 1

    def make(self, spec) -> Agent:
        q = networks.ActionValues.of(spec)
        heads = dict(policy=networks.policy(spec), one=q, two=dataclasses.replace(q))
        network = networks.compose(spec, self.backbone, **heads)
        return Agent(
            actor=PolicyActor(network),
            learner=DiscreteSAC(network, optax.adam(self.learning_rate), self),
            adder=Replay(
                self.capacity, self.batch_size, self.min_size, self.period, discount=self.discount
            ),
            evaluator=PolicyActor(network, greedy=True),
        )


class Outputs(NamedTuple):
    """Quantiles of the return of each action, and their mean."""

    q: jax.Array  # [..., A]
    quantiles: jax.Array  # [..., A, N]


class Quantiles(networks.ActionValues):
    num_quantiles: int = 16

    def __call__(self, features):
        flat = hk.Linear(self.num_actions * self.num_quantiles)(features)
        return flat.reshape(self.num_actions, self.num_quantiles)


class QuantileConfig(dqn.Config):
    """QR-DQN (Dabney et al., 2018)."""

    def make(self, spec):
        base = super().make(spec)
        head = Quantiles(networks.ActionValues.of(spec).num_actions)
        plain = networks.compose(spec, self.backbone, quantiles=head)

        def apply(params, observation):
            quantiles = plain.apply(params, observation).quantiles
            return Outputs(quantiles.mean(-1), quantiles)

        network = plain._replace(apply=apply)
        return dataclasses.replace(
            base,
            actor=dataclasses.replace(base.actor, network=network),
            learner=QuantileDQN(network, base.learner.optimizer, self),
            evaluator=dataclasses.replace(base.evaluator, network=network),
        )


class QuantileDQN(dqn.DQN):
    def loss(self, params, trajectory, key, state):
        outputs = self.network.unroll(params, trajectory.without_final())
        ours = take(outputs.quantiles, trajectory.action)
        following = self.network.unroll_following(state.extra, trajectory)
        theirs = take(following.quantiles, jnp.argmax(following.q, axis=-1))
        gamma = self.config.discount * trajectory.discount
        targets = trajectory.reward[:, None] + gamma[:, None] * theirs
        error = targets[:, None, :] - ours[:, :, None]
        tau = (jnp.arange(ours.shape[-1]) + 0.5) / ours.shape[-1]
        loss = jnp.abs(tau[None, :, None] - (error < 0)) * optax.huber_loss(error)
        metrics = {"value": ours.mean(-1), "target": targets.mean(-1)}
        return loss.mean(axis=2).sum(axis=1), metrics


RIGHT = {
    "leave one out": variant(reinforce, LeaveOneOut)(baseline="none"),
    "expected SARSA": variant(dqn, ExpectedSarsa)(),
    "Munchausen DQN": variant(dqn, Munchausen)(),
    "double Q, Huber, three steps": dqn.Config(loss="huber", n_step=3),
    "one network, no selector": dqn.Config(double=False, duelling=True),
    "advantage-weighted": variant(a2c, AdvantageWeighted)(),
    "better half": variant(a2c, BetterHalf)(),
    "tethered": variant(a2c, Tethered)(),
    "Peng's Q(lambda)": PengQConfig(),
    "slow critic": variant(a2c, SlowCritic)(),
    "shared, standardised actor-critic": a2c.Config(
        shared=True, normalise_advantages=True, scale_rewards=True, normalise_observations=True
    ),
    "discrete SAC": DiscreteSACConfig(),
    "quantiles": QuantileConfig(),
}
