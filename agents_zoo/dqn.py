"""DQN: Q-learning with a network, from replay, towards a target network.

Mnih et al., 2015, "Human-level control through deep reinforcement learning", Nature 518.
https://doi.org/10.1038/nature14236

Minimises, with n-step targets G = r_1 + ... + gamma^(n-1) r_n + gamma^n v(s_n),

    mean(w (G - Q(s, a))^2 / 2),   v(s) = Q'(s, argmax_a Q(s, a))

where Q' is the target network and w is 1, or the importance weight of prioritised replay. Settings
choose among its improvements: `double` (van Hasselt et al., 2016; without, v(s) = max_a Q'(s, a)),
`duelling` (Wang et al., 2016), `n_step` (Sutton, 1988), `prioritised` (Schaul et al., 2016),
`noise` (Fortunato et al., 2018), `temperature` and `munchausen` (Vieillard et al., 2020). With a
recurrent backbone it learns from sequences (Kapturowski et al., 2019: stored state and burn-in).
What is said of a return, and how that is learned, is the critic's: with `critics.Quantiles()`
this is QR-DQN, with `critics.Categorical()` C51, G being a distribution then.

Departures from the paper: Adam, squared errors unless `huber`, no reward clipping; an episode cut
by a time limit is bootstrapped from its last observation.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from rlws import networks
from rlws.actor import Actor, EpsilonGreedy
from rlws.adders import PrioritisedReplay, Replay
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Returns, Scalar, returns
from rlws.learner import Learner
from rlws.networks import MLP, Backbone, Network
from rlws.numerics.optimizers import clipped_adam
from rlws.settings import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    SettingError,
)
from rlws.types import EnvironmentSpec


class Config(AgentConfig):
    """Settings of DQN."""

    backbone: Backbone = MLP((120, 84), "relu")
    learning_rate: Positive = 2.5e-4
    discount: Fraction = 0.99  # gamma, per step
    double: bool = True  # the network chooses the action whose target value is taken
    duelling: bool = False
    n_step: PositiveInt = 1
    critic: Critic = Scalar()  # what is said of the return of an action
    loss: Literal["squared", "huber"] = "squared"  # of a critic that says one number
    # Of the policy that targets follow, softmax(Q / temperature); 0: the best action.
    temperature: NonNegative = 0.0
    munchausen: Fraction = 0.0  # share of its log-probability, in nats, added to rewards
    max_gradient_norm: Positive = 10.0
    target_period: PositiveInt = 50  # updates between copies to the target network
    epsilon_start: Fraction = 1.0  # probability of a random action, at first
    epsilon_end: Fraction = 0.05
    epsilon_steps: PositiveInt = 10_000  # environment steps from one to the other
    boltzmann: NonNegative = 0.0  # temperature of the policy that acts; 0: the best action
    optimism: NonNegative = 0.0  # deviations of its return that are added to an action's value
    noise: NonNegative = 0.0  # of the last layer's weights, at first; 0.5 is the paper's
    capacity: PositiveInt = 50_000  # steps of the replay
    min_size: PositiveInt = 1_000  # steps before the first update
    batch_size: PositiveInt = 128
    period: PositiveInt = 1  # environment steps between turns of learning
    updates: PositiveInt = 1  # in a turn
    prioritised: bool = False
    priority_exponent: Fraction = 0.6
    beta: Fraction = 0.4  # of importance weights, at first
    beta_steps: PositiveInt | None = None  # environment steps until it is 1
    sequence_length: PositiveInt = 1  # steps of a trajectory, for a recurrent backbone
    burn_in: NonNegativeInt = 0  # steps before those, only to warm up the core

    def make(self, spec) -> Agent:
        network = networks.compose(spec, self.backbone, q=self.head(spec))
        sequence, burn_in = self.sequence_length, self.burn_in
        if network.recurrent != (sequence > 1) or (burn_in and not network.recurrent):
            raise SettingError(
                "DQN: sequence_length must be above 1 for a recurrent backbone and 1 for another, "
                f"without burn_in, got {sequence} and {burn_in} for {type(self.backbone).__name__}"
            )
        optimizer = clipped_adam(self.learning_rate, self.max_gradient_norm)
        return Agent(
            actor=self.explorer(network),
            learner=DQN(network, optimizer, self),
            adder=self.replay(),
            evaluator=EpsilonGreedy(network, 0.0, 0.0, 1, greedy=True),
        )

    def head(self, spec: EnvironmentSpec) -> networks.ActionReturns:
        """Returns what says of each action what it returns."""
        num_actions = networks.ActionValues.of(spec).num_actions
        return networks.ActionReturns(num_actions, self.chosen_critic(), self.duelling, self.noise)

    def explorer(self, network: Network) -> Actor:
        """Returns the actor that experience comes from."""
        if self.optimism and isinstance(self.critic, Scalar):
            raise SettingError(
                f"DQN: optimism needs a critic that says more than a mean, got {self.optimism} "
                "with Scalar; take critics.Quantiles"
            )
        schedule = self.epsilon_start, self.epsilon_end, self.epsilon_steps
        return EpsilonGreedy(network, *schedule, temperature=self.boltzmann, optimism=self.optimism)

    def chosen_critic(self) -> Critic:
        """Returns the critic, with the loss that was chosen for it."""
        if self.munchausen and not self.temperature:
            raise SettingError(
                f"DQN: munchausen needs a temperature above 0, got {self.munchausen} and 0; 0.03 "
                "is the paper's"
            )
        if self.loss == "squared":
            return self.critic
        if not isinstance(self.critic, Scalar):
            raise SettingError(
                f"DQN: loss is of critics.Scalar, got {self.loss!r} with "
                f"{type(self.critic).__name__}, whose loss is its own; leave loss out"
            )
        return dataclasses.replace(self.critic, error=self.loss)

    def replay(self) -> Replay:
        """Returns where experience is kept."""
        others: dict[str, Any] = {}
        if self.sequence_length > 1:
            others = dict(length=self.burn_in + self.sequence_length, n_step=1, discount=1.0)
        if not self.prioritised:
            return Replay.of(self, **others)
        others |= dict(exponent=self.priority_exponent, beta=self.beta, beta_steps=self.beta_steps)
        return PrioritisedReplay.of(self, **others)


class DQN(Learner):
    """Moves action values towards those of the best action after n steps."""

    config: Config

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params))  # the target network

    def update(self, state, batch, key):
        state, metrics = super().update(state, batch, key)
        target = optax.periodic_update(
            state.params, state.extra, state.updates, self.config.target_period
        )
        return state._replace(extra=target), metrics

    def prepare(self, state, batch):
        batch, *rest = super().prepare(state, batch)
        # Steps that only warm up the core are none to take a mean over.
        weight = batch.weight.at[:, : self.config.burn_in].set(0.0)
        return batch._replace(weight=weight), *rest

    def loss(self, params, trajectory, key, state):
        config, network = self.config, self.network
        ours = network.warm_up(params, trajectory, config.burn_in)
        theirs = network.warm_up(state.extra, trajectory, config.burn_in)
        keys = jax.random.split(key, 3)
        outputs = network.unroll(params, ours.without_final(), keys[0])
        said = returns(outputs, "q", config.chosen_critic()).take(ours.action)
        following = network.unroll_following(state.extra, theirs, keys[1])
        constant = jax.lax.stop_gradient(params)
        selector = network.unroll_following(constant, ours, keys[2]) if config.double else following
        reward, q_t = ours.reward, returns(following, "q")
        if config.temperature:
            v_t, bonus = self.soft(q_t, selector.q, network.unroll(state.extra, theirs).q, ours)
            reward = reward + bonus
        else:
            v_t = q_t.take(jnp.argmax(selector.q, axis=-1))
        targets = v_t.after(
            reward,
            config.discount * ours.discount,
            min(config.n_step, len(ours.reward)),  # a single transition holds its n steps
            ours.trace(),
        )
        value, target = said.mean(), targets.mean()
        apart = jnp.abs(target - value) * (ours.weight > 0)
        metrics = {"q": value.mean(), "td_error": apart.mean(), "value": value, "target": target}
        if config.prioritised:
            # Of a sequence, between its largest and its mean error (Kapturowski et al., 2019).
            surprise = said.surprise(targets) * (ours.weight > 0)
            metrics["priority"] = 0.9 * surprise.max() + 0.1 * surprise.mean()
        return jnp.pad(said.loss(targets), (config.burn_in, 0)), metrics

    def soft(self, q_t, selector, q, trajectory):
        """Returns what is returned by softmax(Q / temperature), and what it adds to rewards, [T].

        Vieillard, Pietquin and Geist, 2020, "Munchausen reinforcement learning", equation 1;
        https://arxiv.org/abs/2007.14430. As there, what is added is at least -1 times its share.
        """
        tau = self.config.temperature
        taken = Returns(jax.nn.log_softmax(q[:-1] / tau)[..., None]).take(trajectory.action)
        bonus = jnp.clip(tau * taken.mean(), -1.0, 0.0)
        return q_t.soft(selector, tau), self.config.munchausen * bonus
