"""SAC: soft actor-critic with twin critics and a temperature that tunes itself.

Haarnoja et al., 2018, "Soft actor-critic algorithms and applications".
https://arxiv.org/abs/1812.05905

Minimises, for transitions (s, a, r, s') of a replay, with a_s ~ pi(. | s) by reparametrisation,
Q' the target critics and alpha the temperature, the sum of

    (Q_i(s, a) - (r + gamma (min_j Q'_j(s', a') - alpha log pi(a' | s'))))^2 / 2,  i = 1, 2
    alpha log pi(a_s | s) - min_i Q_i(s, a_s)
    -log(alpha) (log pi(a_s | s) + target entropy)

(equations 5, 9 and 18), each with respect to its own parameters. Departures from the paper: the
three are minimised in one step, so the policy learns from the critics of the step before; the loss
of the temperature is in log(alpha), as in the authors' code. An episode cut by a time limit is
bootstrapped from its last observation.
"""

import math

import jax
import jax.numpy as jnp
import optax
from dm_env import specs

from rlws import networks
from rlws.actor import Actor, count_steps
from rlws.adders import Replay
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.networks import MLP, Backbone, Network, heads
from rlws.settings import Fraction, NonNegativeInt, Positive, PositiveInt


class Config(AgentConfig):
    """Settings of SAC."""

    backbone: Backbone = MLP((256, 256), "relu")  # of the policy and of each critic
    learning_rate: Positive = 3e-4  # of policy and temperature
    critic_learning_rate: Positive = 1e-3
    discount: Fraction = 0.99  # gamma, per step
    target_rate: Fraction = 0.005  # how far target critics move towards the critics, per update
    temperature: Positive = 1.0  # at first
    # Nats, of actions in [-1, 1]; default: minus the number of their components.
    target_entropy: float | None = None
    capacity: PositiveInt = 1_000_000  # steps of the replay
    min_size: PositiveInt = 1_000  # steps before the first update
    random_steps: NonNegativeInt = 1_000  # environment steps with uniform actions, at first
    batch_size: PositiveInt = 256
    period: PositiveInt = 1  # environment steps between turns of learning
    updates: PositiveInt = 1  # in a turn
    n_step: PositiveInt = 1

    def make(self, spec) -> Agent:
        policy = networks.compose(
            spec, self.backbone, policy=networks.TanhNormalPolicy(spec.actions)
        )
        critics = networks.critics(spec, self.backbone, 2)
        rates = {
            "policy": self.learning_rate,
            "log_temperature": self.learning_rate,
            "other": self.critic_learning_rate,
        }
        optimizer = optax.partition({k: optax.adam(rate) for k, rate in rates.items()}, _labels)
        replay = Replay(
            self.capacity,
            self.batch_size,
            self.min_size,
            self.period,
            self.updates,
            n_step=self.n_step,
            discount=self.discount,
        )
        return Agent(
            actor=SACActor(policy, spec.actions, self.random_steps),
            learner=SAC(policy, optimizer, critics, self),
            adder=replay,
            evaluator=SACActor(policy, spec.actions, 0, greedy=True),
        )


def _labels(params):
    return {name: name if name in ("policy", "log_temperature") else "other" for name in params}


class SACActor(Actor):
    """Acts uniformly within the bounds for a while, then by the policy."""

    network: Network
    actions: specs.BoundedArray
    random_steps: NonNegativeInt
    greedy: bool = False

    def initial_state(self):
        return jnp.int32(0)

    def select_action(self, params, timestep, state, key):
        policy = self.network.apply(params["policy"], timestep.observation).policy
        if self.greedy:
            return policy.mode(), state, {}
        count, now = count_steps(state, timestep)
        policy_key, uniform_key = jax.random.split(key)
        uniform = heads.uniform(self.actions, uniform_key)
        action = jnp.where(now < self.random_steps, uniform, policy.sample(policy_key))
        return action, count, {}


class SAC(Learner):
    """Improves policy, critics and temperature on transitions."""

    critic: Network
    config: Config

    def init_params(self, key):
        policy_key, critic_key = jax.random.split(key)
        return {
            "policy": self.network.init(policy_key),
            "critic": self.critic.init(critic_key),
            "log_temperature": jnp.log(jnp.float32(self.config.temperature)),
        }

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params["critic"]))  # the targets

    def update(self, state, batch, key):
        state, metrics = super().update(state, batch, key)
        target = optax.incremental_update(
            state.params["critic"], state.extra, self.config.target_rate
        )
        return state._replace(extra=target), metrics

    def value(self, params, trajectory):
        policy = self.network.apply(params["policy"], trajectory.observation).policy
        pair = trajectory.observation, policy.mode()
        return self.critic.apply(params["critic"], pair).value.min(axis=-1)

    def loss(self, params, trajectory, key, state):
        constant = jax.lax.stop_gradient(params)
        temperature = jnp.exp(constant["log_temperature"])
        observation = trajectory.without_final().observation
        key, next_key = jax.random.split(key)

        following = self.network.unroll_following(constant["policy"], trajectory).policy
        next_action, next_log_prob = _drawn(following, next_key)
        next_pair = jax.tree.map(lambda x: x[1:], trajectory.observation), next_action
        next_q = self.critic.apply(state.extra, next_pair).value.min(axis=-1)
        targets = trajectory.reward + self.config.discount * trajectory.discount * (
            next_q - temperature * next_log_prob
        )
        q = self.critic.apply(params["critic"], (observation, trajectory.action)).value
        critic_loss = optax.l2_loss(q - jax.lax.stop_gradient(targets)[:, None]).sum(axis=-1)

        policy = self.network.apply(params["policy"], observation).policy
        action, log_prob = _drawn(policy, key)
        # Constant parameters: the policy's loss reaches the critics' input and not the critics.
        policy_q = self.critic.apply(constant["critic"], (observation, action)).value.min(axis=-1)
        policy_loss = temperature * log_prob - policy_q

        excess = jax.lax.stop_gradient(log_prob) + self._target_entropy(action)
        temperature_loss = -params["log_temperature"] * excess
        metrics = {
            "q": q.mean(axis=-1),
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "entropy": -log_prob,
            "temperature": temperature,
            "value": q.mean(axis=-1),
            "target": targets,
        }
        return critic_loss + policy_loss + temperature_loss, metrics

    def _target_entropy(self, action) -> float:
        target = self.config.target_entropy
        return -float(math.prod(action.shape[1:])) if target is None else target


def _drawn(policy, key):
    """Returns actions, and their log-probabilities in units of half the range of each component.

    In the environment's unit, entropy and its target would be another trade-off in each.
    """
    action, log_prob = policy.sample_and_log_prob(key)
    return action, log_prob + jnp.log(policy.half_range).sum(axis=-1)
