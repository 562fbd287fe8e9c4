"""MPO: imitates the better ones of sampled actions, and moves not far in one go.

Abdolmaleki et al., 2018, "Maximum a posteriori policy optimisation"
(https://arxiv.org/abs/1806.06920), with the bounds on mean and deviation of Abdolmaleki et al.,
2018, "Relative entropy regularized policy iteration" (https://arxiv.org/abs/1812.02256).

Minimises, for transitions (s, a, r, s') of a replay, with targets marked ', actions
a_j ~ pi'(. | s) and their weights w_j = softmax_j(Q'(s, a_j) / eta), the sum of

    (Q(s, a) - (r + gamma mean_j Q'(s', a'_j)))^2 / 2
    eta epsilon + eta log mean_j exp(Q'(s, a_j) / eta)                     by the temperature eta
    -sum_j w_j log pi(a_j | s) + alpha_i KL_i(pi' || pi)                   by the policy
    alpha_i (epsilon_i - KL_i(pi' || pi))                                  by the prices alpha_i

where log pi and KL are of two parts: i is first the mean of pi with the deviation of pi', then the
reverse. Departures from the papers: independent components of actions; targets of n steps instead
of Retrace; all losses are minimised in one step.
Actions beyond their bounds are worth what those at the bounds are, which is what the environment
makes of them. An episode cut by a time limit is bootstrapped from its last observation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from dm_env import specs

from rlws import networks
from rlws.actor import Actor
from rlws.adders import Replay
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, returns
from rlws.learner import Learner
from rlws.networks import MLP, Backbone, Network, Normal
from rlws.settings import Fraction, Positive, PositiveInt
from rlws.types import Array


class Config(AgentConfig):
    """Settings of MPO."""

    backbone: Backbone = MLP((256, 256), "elu", layer_norm=True)  # of the policy and each critic
    learning_rate: Positive = 3e-4  # of the policy
    critic_learning_rate: Positive = 3e-4
    dual_learning_rate: Positive = 1e-2  # of temperature and prices, which are learned as logs
    critic: Critic = Scalar()  # what is said of the return of an action
    critics: PositiveInt = 1  # targets are of the lowest
    discount: Fraction = 0.99  # gamma, per step
    samples: PositiveInt = 20  # actions drawn in each state
    temperature: Positive = 1.0  # eta, at first
    epsilon: Positive = 0.1  # nats that weights may differ from uniform ones
    epsilon_mean: Positive = 0.01  # nats that the means may move from the target's
    epsilon_deviation: Positive = 1e-4  # likewise deviations
    price: Positive = 1.0  # alpha, at first
    target_period: PositiveInt = 100  # updates between copies to the targets
    capacity: PositiveInt = 1_000_000  # steps of the replay
    min_size: PositiveInt = 1_000  # steps before the first update
    batch_size: PositiveInt = 256
    period: PositiveInt = 1  # environment steps between turns of learning
    updates: PositiveInt = 1  # in a turn
    n_step: PositiveInt = 5

    def make(self, spec) -> Agent:
        head = networks.NormalPolicy(spec.actions, dependent=True)
        policy = networks.compose(spec, self.backbone, policy=head)
        critics = networks.critics(spec, self.backbone, self.critics, self.critic)
        rates = {
            "policy": self.learning_rate,
            "critic": self.critic_learning_rate,
            "other": self.dual_learning_rate,
        }
        optimizer = optax.partition({k: optax.adam(rate) for k, rate in rates.items()}, _labels)
        return Agent(
            actor=MPOActor(policy),
            learner=MPO(policy, optimizer, critics, spec.actions, self),
            adder=Replay.of(self),
            evaluator=MPOActor(policy, greedy=True),
        )


def _labels(params):
    return {name: name if name in ("policy", "critic") else "other" for name in params}


class MPOActor(Actor):
    """Draws actions from the policy, or takes its mean."""

    network: Network
    greedy: bool = False

    def select_action(self, params, timestep, state, key):
        policy = self.network.apply(params["policy"], timestep.observation).policy
        return policy.mode() if self.greedy else policy.sample(key), state, {}


class MPO(Learner):
    """Improves policy, critics, temperature and prices on transitions."""

    critic: Network
    actions: specs.Array
    config: Config

    def init_params(self, key):
        policy_key, critic_key = jax.random.split(key)
        return {
            "policy": self.network.init(policy_key),
            "critic": self.critic.init(critic_key),
            "log_temperature": jnp.log(jnp.float32(self.config.temperature)),
            "log_prices": jnp.log(jnp.full(2, self.config.price, jnp.float32)),
        }

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, _targets(state.params)))

    def update(self, state, batch, key):
        state, metrics = super().update(state, batch, key)
        period, now = self.config.target_period, _targets(state.params)
        target = optax.periodic_update(now, state.extra, state.updates, period)
        return state._replace(extra=target), metrics

    def value(self, params, trajectory):
        policy = self.network.apply(params["policy"], trajectory.observation).policy
        said = self.says(params["critic"], trajectory.observation, policy.mode())
        return said.lowest().mean()

    def says(self, params, observation, action, *key):
        """Returns what critics say of the returns of actions [..., n], [..., critics]."""
        if isinstance(self.actions, specs.BoundedArray):
            bounds = self.actions.minimum, self.actions.maximum
            action = jnp.clip(action, *(jnp.broadcast_to(x, action.shape) for x in bounds))
        return returns(self.critic(params, (observation, action), *key), "value")

    def loss(self, params, trajectory, key, state):
        config, target = self.config, state.extra
        acted = trajectory.without_final().observation
        draw_key, *keys = jax.random.split(key, 3)

        # Of all observations, of which only the last is followed and not acted on.
        old = self.network.apply(target["policy"], trajectory.observation).policy
        drawn = jax.vmap(old.sample)(jax.random.split(draw_key, config.samples))
        drawn = jnp.moveaxis(drawn, 0, 1)  # [T + 1, samples, n]
        many = lambda x: jnp.repeat(x[:, None], config.samples, axis=1)
        repeated = jax.tree.map(many, trajectory.observation)
        q = self.says(target["critic"], repeated, drawn, keys[0]).lowest()

        even = jnp.full(q.atoms.shape[:-1], 1.0 / config.samples)
        v_t = jax.tree.map(lambda x: x[1:], q.mixed(even))
        targets = v_t.moved(trajectory.reward, config.discount * trajectory.discount)
        said = self.says(params["critic"], acted, trajectory.action, keys[1])
        critic_loss = said.loss(targets.for_each()).sum(axis=-1)

        old, drawn, worth = jax.tree.map(lambda x: x[:-1], (old, drawn, q.mean()))
        weights, temperature_loss = reweighted(worth, params["log_temperature"], config.epsilon)
        new = self.network.apply(params["policy"], acted).policy
        # As likely as by either part alone: so that the two are bounded apart.
        log_prob = jax.vmap(lambda a: _decoupled(old, new, a), in_axes=1, out_axes=1)(drawn)
        policy_loss = -jnp.sum(weights * log_prob, axis=-1)
        divergences = old.divergences(new)  # [T, 2]
        limits = jnp.asarray([config.epsilon_mean, config.epsilon_deviation])
        bound_loss = bounded(divergences, params["log_prices"], limits)
        value = said.mean().mean(axis=-1)
        return critic_loss + policy_loss + temperature_loss + bound_loss, {
            "q": value,
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "entropy": new.entropy(),
            "temperature": jnp.exp(params["log_temperature"]),
            "kl_mean": divergences[:, 0],
            "kl_deviation": divergences[:, 1],
            "value": value,
            "target": targets.mean(),
        }


def _targets(params):
    return {name: params[name] for name in ("policy", "critic")}


def _decoupled(old: Normal, new: Normal, action: Array) -> Array:
    return Normal(new.mean, old.log_std).log_prob(action) + Normal(old.mean, new.log_std).log_prob(
        action
    )


def reweighted(values: Array, log_temperature: Array, epsilon: float) -> tuple[Array, Array]:
    """Returns weights of samples by their values, [..., n], and the temperature's loss, [...].

    At its minimum, weights differ from uniform ones by `epsilon` nats.
    """
    temperature = jnp.exp(log_temperature)
    scaled = jax.lax.stop_gradient(values) / temperature
    mean = jax.nn.logsumexp(scaled, axis=-1) - np.log(values.shape[-1])
    weights = jax.lax.stop_gradient(jax.nn.softmax(scaled))
    return weights, temperature * (epsilon + mean)


def bounded(divergences: Array, log_prices: Array, limits: Array) -> Array:
    """Returns what divergences [..., parts] cost, and the loss of what they cost, [...].

    Prices [parts] rise where divergences are above their limits [parts], and fall below.
    """
    constant, each = jax.lax.stop_gradient, lambda x: jnp.broadcast_to(x, divergences.shape)
    prices, limits = each(jnp.exp(log_prices)), each(limits)
    owed = prices * (limits - constant(divergences)) + constant(prices) * divergences
    return jnp.sum(owed, axis=-1)
