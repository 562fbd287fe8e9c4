"""Nine more agents that are right, as somebody writes them who has read the README alone."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from agents_zoo import a2c, reinforce
from rlws import networks
from rlws.actor import Actor, EpsilonGreedy, PolicyActor
from rlws.adders import Replay, Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.networks import MLP, Backbone, Network
from rlws.numerics.returns import generalised_advantages


class Settings(AgentConfig):
    """What those that learn from unrolls have in common."""

    backbone: Backbone = MLP()
    learning_rate: float = 1e-3
    discount: float = 0.99
    unroll_length: int = 16

    def agent(self, actor, learner, evaluator):
        return Agent(actor, learner, Unrolls(self.unroll_length), evaluator)


def taken(q, action):
    return jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]


def advantages(config, trajectory, values, lambda_=0.9):
    gamma = config.discount * trajectory.discount
    return generalised_advantages(trajectory.reward, gamma, trajectory.trace(lambda_), values)


class ExpectedSarsa(Learner):
    """Expected SARSA(lambda), on-policy: values are those of whoever acts (van Seijen, 2009)."""

    config: AgentConfig
    epsilon: float = 0.1

    def value(self, params, trajectory):
        q = self.network.unroll(params, trajectory).q
        return (1 - self.epsilon) * q.max(axis=-1) + self.epsilon * q.mean(axis=-1)

    def loss(self, params, trajectory, key, state):
        constant = jax.lax.stop_gradient(params)
        value = self.value(constant, trajectory)
        target = value[:-1] + advantages(self.config, trajectory, value)
        ours = taken(self.network.unroll(params, trajectory).q[:-1], trajectory.action)
        return (ours - target) ** 2, {"td_error": jnp.abs(ours - target)}


class ExpectedSarsaConfig(Settings):
    def make(self, spec):
        network = networks.compose(spec, self.backbone, q=networks.ActionValues.of(spec))
        acts = lambda epsilon: EpsilonGreedy(network, epsilon, epsilon, 1)
        learner = ExpectedSarsa(network, optax.adam(self.learning_rate), self)
        return self.agent(acts(learner.epsilon), learner, acts(0.0))


class Penalised(Learner):
    """PPO with an adaptive penalty instead of a clip (Schulman et al., 2017, section 4)."""

    config: AgentConfig

    def init(self, key):
        return super().init(key)._replace(extra=jnp.float32(1.0))  # what divergence costs

    def update(self, state, batch, key):
        state, metrics = jax.lax.scan(
            lambda state, key: super(Penalised, self).update(state, batch, key),
            state,
            jax.random.split(key, 4),
        )
        last = jax.tree.map(lambda x: x[-1], metrics)
        factor = jnp.where(last["kl"] > 0.03, 2.0, jnp.where(last["kl"] < 0.01, 0.5, 1.0))
        return state._replace(extra=jnp.clip(state.extra * factor, 1e-3, 1e3)), last

    def loss(self, params, trajectory, key, state):
        outputs = self.network.unroll(params, trajectory)
        value, policy = jax.tree.map(lambda x: x[:-1], (outputs.value, outputs.policy))
        advantage = advantages(self.config, trajectory, jax.lax.stop_gradient(outputs.value))
        target = jax.lax.stop_gradient(value) + advantage
        log_ratio = policy.log_prob(trajectory.action) - trajectory.extras["log_prob"]
        kl = jnp.exp(log_ratio) - 1 - log_ratio
        loss = state.extra * kl - jnp.exp(log_ratio) * advantage
        return loss + 0.5 * optax.huber_loss(value, target), {"kl": kl, "kl_cost": state.extra}


class PenalisedConfig(Settings):
    def make(self, spec):
        heads = dict(policy=networks.policy(spec), value=networks.Value())
        network = networks.compose(spec, self.backbone, **heads)
        learner = Penalised(network, optax.adam(self.learning_rate), self)
        greedy = PolicyActor(network, greedy=True)
        return self.agent(PolicyActor(network, log_prob=True), learner, greedy)


class SelfImitating(a2c.A2C):
    """A2C that learns once more from what went better than expected (Oh et al., 2018)."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        outputs = self.network.unroll(params, trajectory)
        better = jnp.maximum(metrics["target"] - outputs.value[:-1], 0.0)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        again = -policy.log_prob(trajectory.action) * jax.lax.stop_gradient(better)
        return loss + 0.1 * again + 0.1 * 0.5 * better**2, metrics


class SelfImitatingConfig(a2c.Config):
    def make(self, spec):
        agent = super().make(spec)
        return dataclasses.replace(agent, learner=SelfImitating(**vars(agent.learner)))


class QuantileActorCritic(Learner):
    """An actor-critic whose critic says quantiles of the return, from a head of its own."""

    config: AgentConfig

    def value(self, params, trajectory):
        return self.network.unroll(params, trajectory).quantiles.mean(axis=-1)

    def loss(self, params, trajectory, key, state):
        outputs = self.network.unroll(params, trajectory)
        constant = jax.lax.stop_gradient(outputs.quantiles)
        gamma = self.config.discount * trajectory.discount
        ours, following = outputs.quantiles[:-1], constant[1:]
        targets = trajectory.reward[:, None] + gamma[:, None] * following
        error = targets[:, None, :] - ours[:, :, None]
        fraction = (jnp.arange(ours.shape[-1]) + 0.5) / ours.shape[-1]
        critic = jnp.abs(fraction[None, :, None] - (error < 0)) * optax.huber_loss(error)
        gain = targets.mean(axis=-1) - constant[:-1].mean(axis=-1)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        loss = critic.sum(axis=1).mean(axis=1) - policy.log_prob(trajectory.action) * gain
        return loss - 0.003 * policy.entropy(), {"entropy": policy.entropy(), "gain": gain}


class QuantileActorCriticConfig(Settings):
    def make(self, spec):
        heads = dict(policy=networks.policy(spec), quantiles=lambda x: hk.Linear(8)(x))
        network = networks.compose(spec, self.backbone, shared=False, **heads)
        learner = QuantileActorCritic(network, optax.adam(self.learning_rate), self)
        return self.agent(PolicyActor(network), learner, PolicyActor(network, greedy=True))


class AllActions(Learner):
    """A policy gradient over all actions, by values of each (Allen et al., 2017)."""

    config: AgentConfig

    def value(self, params, trajectory):
        outputs = self.network.unroll(params, trajectory)
        return (jax.nn.softmax(outputs.policy.logits) * outputs.q).sum(axis=-1)

    def loss(self, params, trajectory, key, state):
        outputs = self.network.unroll(params, trajectory)
        q, policy = outputs.q[:-1], jax.nn.softmax(outputs.policy.logits[:-1])
        value = self.value(jax.lax.stop_gradient(params), trajectory)
        target = value[:-1] + advantages(self.config, trajectory, value)
        critic = optax.l2_loss(taken(q, trajectory.action), target)
        gain = jax.lax.stop_gradient(q) - value[:-1, None]
        return critic - (policy * gain).sum(axis=-1), {"critic_loss": critic}


class AllActionsConfig(Settings):
    def make(self, spec):
        heads = dict(policy=networks.policy(spec), q=networks.ActionValues.of(spec))
        network = networks.compose(spec, self.backbone, shared=False, **heads)
        learner = AllActions(network, optax.adam(self.learning_rate), self)
        return self.agent(PolicyActor(network), learner, PolicyActor(network, greedy=True))


class Traces(Learner):
    """TD(lambda) as it was first written: backwards, by traces of gradients (Sutton, 1988).

    Actor-critic with eligibility (Sutton and Barto, section 13.5, without the powers of gamma). It
    has no loss.
    """

    config: AgentConfig
    decay: float = 0.9

    def update(self, state, batch, key):
        def ours(params, observation, action):
            outputs = self.network(params, observation)
            return outputs.value + outputs.policy.log_prob(action)

        def one(trajectory):
            value = self.network(state.params, trajectory.observation).value
            gamma = self.config.discount * trajectory.discount
            error = (trajectory.reward + gamma * value[1:] - value[:-1]) * (trajectory.weight > 0)

            def back(carry, step):
                trace, change = carry
                observation, action, error, decay = step
                gradient = jax.grad(ours)(state.params, observation, action)
                trace = jax.tree.map(jnp.add, trace, gradient)
                change = jax.tree.map(lambda c, z: c - error * z, change, trace)
                return (jax.tree.map(lambda z: decay * z, trace), change), None

            zeros = jax.tree.map(jnp.zeros_like, state.params)
            decay = gamma * trajectory.trace(self.decay)
            steps = trajectory.observation[:-1], trajectory.action, error, decay
            return jax.lax.scan(back, (zeros, zeros), steps)[0][1]

        count = jnp.maximum((batch.weight > 0).sum(), 1)
        grads = jax.tree.map(lambda x: x.sum(axis=0) / count, jax.vmap(one)(batch))
        changes, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, changes)
        return state._replace(params=params, opt_state=opt_state), {}


class TracesConfig(Settings):
    def make(self, spec):
        heads = dict(policy=networks.policy(spec), value=networks.Value())
        network = networks.compose(spec, self.backbone, shared=False, **heads)
        learner = Traces(network, optax.adam(self.learning_rate), self)
        return self.agent(PolicyActor(network), learner, PolicyActor(network, greedy=True))


class Averaged(Learner):
    """DQN whose targets are of the mean of several slow copies (Anschel et al., 2017)."""

    config: AgentConfig
    copies: int = 3

    def init(self, key):
        state = super().init(key)
        many = jax.tree.map(lambda x: jnp.stack([x] * self.copies), state.params)
        return state._replace(extra=many)

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        push = lambda old, new: jnp.concatenate([new[None], old[:-1]])
        turn = after.updates % 20 == 0
        keep = lambda old, new: jnp.where(turn, push(old, new), old)
        return after._replace(extra=jax.tree.map(keep, state.extra, after.params)), metrics

    def loss(self, params, trajectory, key, state):
        said = lambda params: self.network.unroll_following(params, trajectory).q
        following = jax.vmap(said)(state.extra).mean(axis=0).max(axis=-1)
        target = trajectory.reward + self.config.discount * trajectory.discount * following
        q = self.network.unroll(params, trajectory.without_final()).q
        return optax.huber_loss(taken(q, trajectory.action), target), {"q": q.max(axis=-1)}


class AveragedConfig(AgentConfig):
    backbone: Backbone = MLP()
    learning_rate: float = 1e-3
    discount: float = 0.99
    capacity: int = 10_000
    batch_size: int = 32
    min_size: int = 100

    def make(self, spec):
        network = networks.compose(spec, self.backbone, q=networks.ActionValues.of(spec))
        return Agent(
            actor=EpsilonGreedy(network, 1.0, 0.1, 1_000),
            learner=Averaged(network, optax.adam(self.learning_rate), self),
            adder=Replay(self.capacity, self.batch_size, self.min_size),
            evaluator=EpsilonGreedy(network, 0.0, 0.0, 1),
        )


class Explorer(Actor):
    """The policy of continuous actions, in a dict of parameters."""

    network: Network
    greedy: bool = False

    def select_action(self, params, timestep, state, key):
        policy = self.network(params["policy"], timestep.observation).policy
        return policy.mode() if self.greedy else policy.sample(key), state, {}


class Implicit(Learner):
    """IQL, online: values are high expectiles, the policy is weighed (Kostrikov et al., 2021)."""

    critic: Network
    worth: Network
    config: AgentConfig
    expectile: float = 0.7

    def init_params(self, key):
        parts = {"policy": self.network, "critic": self.critic, "value": self.worth}
        keys = jax.random.split(key, 3)
        return {name: x.init(k) for (name, x), k in zip(parts.items(), keys, strict=True)}

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params["critic"]))

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        slow = optax.incremental_update(after.params["critic"], state.extra, 0.05)
        return after._replace(extra=slow), metrics

    def value(self, params, trajectory):
        return self.worth(params["value"], trajectory.observation).value

    def loss(self, params, trajectory, key, state):
        values = self.value(params, trajectory)
        observation, action = trajectory.observation[:-1], trajectory.action
        gamma = self.config.discount * trajectory.discount
        target = trajectory.reward + gamma * jax.lax.stop_gradient(values[1:])
        both = self.critic(params["critic"], (observation, action)).value
        critic = 0.5 * jnp.square(both - target[:, None]).sum(axis=-1)
        slow = self.critic(state.extra, (observation, action)).value.min(axis=-1)
        error = slow - values[:-1]
        side = jnp.where(error > 0, self.expectile, 1 - self.expectile)
        weight = jnp.minimum(jnp.exp(10.0 * jax.lax.stop_gradient(error)), 100.0)
        policy = self.network(params["policy"], observation).policy
        loss = critic + side * error**2 - weight * policy.log_prob(action)
        return loss, {"critic_loss": critic, "q": both.mean(axis=-1)}


class ImplicitConfig(AveragedConfig):
    def make(self, spec):
        policy = networks.compose(spec, self.backbone, policy=networks.policy(spec))
        worth = networks.compose(spec, self.backbone, value=networks.Value())
        critic = networks.critics(spec, self.backbone, 2)
        return Agent(
            actor=Explorer(policy),
            learner=Implicit(policy, optax.adam(self.learning_rate), critic, worth, self),
            adder=Replay(self.capacity, self.batch_size, self.min_size),
            evaluator=Explorer(policy, greedy=True),
        )


MORE = {
    "expected SARSA(lambda)": ExpectedSarsaConfig(),
    "penalised divergence": PenalisedConfig(),
    "self-imitating": SelfImitatingConfig(),
    "quantile actor-critic": QuantileActorCriticConfig(),
    "all actions": AllActionsConfig(),
    "eligibility traces": TracesConfig(),
    "averaged DQN": AveragedConfig(),
    "implicit Q": ImplicitConfig(),
    "discounted visits": reinforce.Config(discounted_gradient=True),
}
