"""Discrete SAC: soft actor-critic where actions can be counted, so that nothing need be drawn.

Christodoulou, 2019, "Soft actor-critic for discrete action settings".
https://arxiv.org/abs/1910.07207

Minimises, for transitions (s, a, r, s') of a replay, with Q' the target critics and alpha the
temperature, the sum of

    (Q_i(s, a) - (r + gamma E_pi[min_j Q'_j(s', .) - alpha log pi(. | s')]))^2 / 2,  i = 1, 2
    E_pi[alpha log pi(. | s) - min_i Q_i(s, .)]
    -log(alpha) E_pi[log pi(. | s) + target entropy]

(equations 4 and 10 to 12), each with respect to its own parameters. Departures from the paper:
the three are minimised in one step; the loss of the temperature is in log(alpha), as in `sac.py`;
an episode cut by a time limit is bootstrapped from its last observation. What a critic says of the
return of an action is a part (`critic`).
"""

import jax
import jax.numpy as jnp
import optax

from rlws import networks
from rlws.actor import Actor, count_steps
from rlws.adders import Replay
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, returns
from rlws.learner import Learner
from rlws.networks import MLP, Backbone, Network
from rlws.networks.masks import ILLEGAL
from rlws.settings import Fraction, NonNegativeInt, Positive, PositiveInt


class Config(AgentConfig):
    """Settings of discrete SAC."""

    backbone: Backbone = MLP((128, 128), "relu")  # of the policy and of each critic
    learning_rate: Positive = 3e-4  # of policy and temperature
    critic_learning_rate: Positive = 3e-4
    critic: Critic = Scalar()  # what is said of the return of an action
    critics: PositiveInt = 2
    discount: Fraction = 0.99  # gamma, per step
    target_rate: Fraction = 0.005  # how far target critics move towards the critics, per update
    temperature: Positive = 1.0  # at first
    entropy_share: Fraction = 0.98  # of that of a uniform policy: the target entropy
    capacity: PositiveInt = 100_000  # steps of the replay
    min_size: PositiveInt = 1_000  # steps before the first update
    random_steps: NonNegativeInt = 1_000  # environment steps with any action, at first
    batch_size: PositiveInt = 64
    period: PositiveInt = 1  # environment steps between turns of learning
    updates: PositiveInt = 1  # in a turn
    n_step: PositiveInt = 1

    def make(self, spec) -> Agent:
        head = networks.ActionReturns(networks.ActionValues.of(spec).num_actions, self.critic)
        policy = networks.compose(spec, self.backbone, policy=networks.policy(spec))
        critics = networks.ensemble(networks.compose(spec, self.backbone, q=head), self.critics)
        rates = {"critic": self.critic_learning_rate, "other": self.learning_rate}
        optimizer = optax.partition({k: optax.adam(rate) for k, rate in rates.items()}, _labels)
        return Agent(
            actor=DiscreteSACActor(policy, head.num_actions, self.random_steps),
            learner=DiscreteSAC(policy, optimizer, critics, self),
            adder=Replay.of(self),
            evaluator=DiscreteSACActor(policy, head.num_actions, 0, greedy=True),
        )


def _labels(params):
    return {name: name if name == "critic" else "other" for name in params}


class DiscreteSACActor(Actor):
    """Takes any action for a while, then one by the policy."""

    network: Network
    num_actions: PositiveInt
    random_steps: NonNegativeInt
    greedy: bool = False

    def initial_state(self):
        return jnp.int32(0)

    def select_action(self, params, timestep, state, key):
        observation = timestep.observation
        policy = self.network.apply(params["policy"], observation).policy
        if self.greedy:
            return policy.mode(), state, {}
        count, now = count_steps(state, timestep)
        policy_key, random_key = jax.random.split(key)
        anything = networks.random_action(observation, self.num_actions, random_key)
        action = jnp.where(now < self.random_steps, anything, policy.sample(policy_key))
        return action, count, {}


class DiscreteSAC(Learner):
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
        observation = trajectory.observation
        logits = self.network.apply(params["policy"], observation).policy.logits
        log_policy = jax.nn.log_softmax(logits)
        q = self.critic(params["critic"], observation).q.min(axis=-1)
        soft = q - jnp.exp(params["log_temperature"]) * log_policy
        return jnp.sum(jnp.exp(log_policy) * soft, axis=-1)

    def loss(self, params, trajectory, key, state):
        config, constant = self.config, jax.lax.stop_gradient(params)
        temperature = jnp.exp(constant["log_temperature"])
        observation = trajectory.without_final().observation
        keys = jax.random.split(key)

        following = self.network.unroll_following(constant["policy"], trajectory).policy.logits
        log_next = jax.nn.log_softmax(following)
        next_observation = jax.tree.map(lambda x: x[1:], trajectory.observation)
        q_t = returns(self.critic(state.extra, next_observation, keys[0]), "q").lowest()
        v_t = q_t.moved(-temperature * log_next).mixed(jnp.exp(log_next))
        targets = v_t.moved(trajectory.reward, config.discount * trajectory.discount)
        outputs = self.critic(params["critic"], observation, keys[1])
        # Of each action what all critics say, and of those of the action that was taken.
        every = jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2), returns(outputs, "q"))
        said = every.take(jnp.broadcast_to(trajectory.action[:, None], every.atoms.shape[:2]))
        critic_loss = said.loss(targets.for_each()).sum(axis=-1)

        logits = self.network.apply(params["policy"], observation).policy.logits
        log_policy = jax.nn.log_softmax(logits)
        policy = jnp.exp(log_policy)
        q = jax.lax.stop_gradient(outputs.q).min(axis=-1)
        policy_loss = jnp.sum(policy * (temperature * log_policy - q), axis=-1)

        entropy = -jnp.sum(policy * log_policy, axis=-1)
        most = jnp.log(jnp.sum(logits > ILLEGAL, axis=-1))  # of a policy of legal actions
        short = config.entropy_share * most - jax.lax.stop_gradient(entropy)
        temperature_loss = -params["log_temperature"] * short
        return critic_loss + policy_loss + temperature_loss, {
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "entropy": entropy,
            "temperature": temperature,
            "value": said.mean().mean(axis=-1),
            "target": targets.mean(),
        }
