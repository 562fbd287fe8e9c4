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

What a critic says of a return is a part (`critic`), as is how many there are and what is made of
them: `critics`, of which a `subset` is looked at (REDQ: Chen et al., 2021), or from whose quantiles
the highest are dropped (TQC: Kuznetsov et al., 2020, `drop`). In either case the policy learns from
the mean of all, as theirs do. Pictures go through an `encoder` (Yarats et al., 2021).
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
from rlws.critics import Critic, ImplicitQuantiles, Quantiles, Scalar, returns
from rlws.learner import Learner, delayed
from rlws.networks import MLP, Backbone, Network, heads, policy_params
from rlws.settings import Fraction, NonNegativeInt, Positive, PositiveInt, SettingError


class Config(AgentConfig):
    """Settings of SAC."""

    backbone: Backbone = MLP((256, 256), "relu")  # of the policy and of each critic
    critic_backbone: Backbone | None = None  # of each critic, where it is another
    encoder: Backbone | None = None  # of pictures, one before all of them; only critics teach it
    learning_rate: Positive = 3e-4  # of policy and temperature
    critic_learning_rate: Positive = 1e-3
    critic: Critic = Scalar()  # what is said of the return of an action
    critics: PositiveInt = 2
    subset: PositiveInt | None = None  # critics whose lowest is the target, drawn; None: all
    drop: NonNegativeInt = 0  # highest quantiles of each critic that targets leave out
    discount: Fraction = 0.99  # gamma, per step
    # How far target critics move towards the critics, per update; None: there are none.
    target_rate: Fraction | None = 0.005
    policy_period: PositiveInt = 1  # updates of the critics for one of policy and temperature
    momentum: Fraction = 0.9  # Adam's beta_1
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
        if self.subset is not None and (self.subset > self.critics or self.drop):
            raise SettingError(
                f"SAC: subset must be at most critics={self.critics} and go without drop, got "
                f"{self.subset} and drop={self.drop}"
            )
        if self.drop and self.drop >= self._quantiles():
            raise SettingError(
                f"SAC: drop must leave quantiles, got {self.drop} of the {self._quantiles()} that "
                f"{type(self.critic).__name__} says; take critics.Quantiles of more, or lower it"
            )
        head = networks.TanhNormalPolicy(spec.actions)
        backbone = self.critic_backbone or self.backbone
        policy, critics = networks.behind(
            spec,
            self.encoder,
            lambda seen: networks.compose(seen, self.backbone, policy=head),
            lambda seen: networks.critics(seen, backbone, self.critics, self.critic),
        )
        rates = {
            "policy": self.learning_rate,
            "log_temperature": self.learning_rate,
            "other": self.critic_learning_rate,
        }
        adam = {k: optax.adam(rate, self.momentum) for k, rate in rates.items()}
        optimizer = optax.partition(adam, _labels)
        return Agent(
            actor=SACActor(policy, spec.actions, self.random_steps),
            learner=SAC(policy, optimizer, critics, self),
            adder=Replay.of(self),
            evaluator=SACActor(policy, spec.actions, 0, greedy=True),
        )

    def _quantiles(self) -> int:
        critic = self.critic
        return critic.size if isinstance(critic, Quantiles | ImplicitQuantiles) else 0


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
        policy = self.network.apply(policy_params(params), timestep.observation).policy
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
        if self.config.target_rate is None:
            return state
        return state._replace(extra=jax.tree.map(jnp.copy, state.params["critic"]))  # the targets

    def update(self, state, batch, key):
        period, rate = self.config.policy_period, self.config.target_rate
        after, metrics = super().update(state, batch, key)
        if period > 1:
            turn = after.updates % period == 0
            after = delayed(state, after, turn, ("policy", "log_temperature"))
        if rate is None:
            return after, metrics
        target = optax.incremental_update(after.params["critic"], state.extra, rate)
        return after._replace(extra=target), metrics

    def value(self, params, trajectory):
        policy = self.network.apply(policy_params(params), trajectory.observation).policy
        pair = trajectory.observation, policy.mode()
        value = self.critic.apply(params["critic"], pair).value
        return value.mean(axis=-1) if self.averages() else value.min(axis=-1)

    def loss(self, params, trajectory, key, state):
        constant = jax.lax.stop_gradient(params)
        temperature = jnp.exp(constant["log_temperature"])
        observation = trajectory.without_final().observation
        key, next_key, *keys = jax.random.split(key, 6)

        following = self.network.unroll_following(policy_params(constant), trajectory).policy
        next_action, next_log_prob = _drawn(following, next_key)
        next_pair = jax.tree.map(lambda x: x[1:], trajectory.observation), next_action
        pair = observation, trajectory.action
        weight = trajectory.weight
        if self.config.target_rate is None:
            # What no value is taken of counts for no statistics, either.
            weights = jnp.concatenate([weight, weight * trajectory.discount])
            outputs, next_outputs, kept = self.both(params, pair, next_pair, weights, keys[2])
        else:
            next_outputs = self.critic(state.extra, next_pair, keys[0])
            outputs, kept = self.critic.train(params["critic"], pair, weight, keys[2])
        next_returns = returns(next_outputs, "value")
        v_t = self.cautious(next_returns, keys[1]).moved(-temperature * next_log_prob)
        targets = v_t.moved(trajectory.reward, self.config.discount * trajectory.discount)
        critic_loss = returns(outputs, "value").loss(targets.for_each()).sum(axis=-1)

        own = policy_params(params)
        policy_outputs, policy_kept = self.network.train(own, observation, weight)
        policy = policy_outputs.policy
        action, log_prob = _drawn(policy, key)
        # Constant parameters: the policy's loss reaches the critics' input and not the critics.
        policy_q = self.critic(constant["critic"], (observation, action), keys[3]).value
        policy_q = policy_q.mean(axis=-1) if self.averages() else policy_q.min(axis=-1)
        policy_loss = temperature * log_prob - policy_q

        excess = jax.lax.stop_gradient(log_prob) + self._target_entropy(action)
        temperature_loss = -params["log_temperature"] * excess
        q = outputs.value.mean(axis=-1)
        metrics = {
            "q": q,
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "entropy": -log_prob,
            "temperature": temperature,
            "value": q,
            "target": targets.mean(),
        }
        if statistics := {k: x for k, x in (("critic", kept), ("policy", policy_kept)) if x}:
            metrics["statistics"] = statistics
        return critic_loss + policy_loss + temperature_loss, metrics

    def both(self, params, pair, next_pair, weights, key):
        """Returns what critics say of two pairs, [T, ...] each, seen at once, and statistics.

        So that what follows is normalised as what was done is: Bhatt et al., 2024, "CrossQ".
        """
        joined = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), pair, next_pair)
        outputs, kept = self.critic.train(params["critic"], joined, weights, key)
        half = lambda i: jax.tree.map(lambda x: jnp.split(x, 2)[i], outputs)
        return half(0), half(1), kept

    def cautious(self, said, key):
        """Returns what targets are made of, [T], of what all critics say, [T, critics]."""
        config = self.config
        if config.drop:
            return said.without_top(config.drop)
        if config.subset is not None:
            said = said.among(jax.random.permutation(key, config.critics)[: config.subset])
        return said.lowest()

    def averages(self) -> bool:
        """Returns whether the policy learns from the mean of all critics, not from the lowest."""
        return bool(self.config.drop) or self.config.subset is not None

    def _target_entropy(self, action) -> float:
        target = self.config.target_entropy
        return -float(math.prod(action.shape[1:])) if target is None else target


def _drawn(policy, key):
    """Returns actions, and their log-probabilities in units of half the range of each component.

    In the environment's unit, entropy and its target would be another trade-off in each.
    """
    action, log_prob = policy.sample_and_log_prob(key)
    return action, log_prob + jnp.log(policy.half_range).sum(axis=-1)
