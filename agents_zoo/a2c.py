"""A2C: advantage actor-critic, one gradient step on each batch of short unrolls.

Mnih et al., 2016, "Asynchronous methods for deep reinforcement learning" (A3C, of which this is the
synchronous form). https://arxiv.org/abs/1602.01783

Minimises, with advantages A_t estimated from the unroll and targets G_t = A_t + V(s_t),

    mean_t(-log pi(a_t | s_t) A_t + value_cost * (V(s_t) - G_t)^2 / 2 - entropy_cost * H_t)

Departures from the paper: generalised advantage estimation (gae_lambda = 1 is the paper's n-step
return), Adam instead of RMSProp, separate networks by default. An episode cut by a time limit is
bootstrapped from its last observation.
"""

import jax

from rlws import networks
from rlws.actor import PolicyActor
from rlws.adders import Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, certain, returns
from rlws.learner import Learner
from rlws.networks import MLP, Backbone
from rlws.normalise import normalise_observations, scale_rewards
from rlws.numerics.means import standardise
from rlws.numerics.optimizers import clipped_adam
from rlws.numerics.returns import generalised_advantages
from rlws.settings import Fraction, NonNegative, Positive, PositiveInt


class Config(AgentConfig):
    """Settings of A2C."""

    backbone: Backbone = MLP()  # of policy and value
    shared: bool = False  # one backbone for both
    learning_rate: Positive = 2e-3
    discount: Fraction = 0.99  # gamma, per step
    gae_lambda: Fraction = 0.95  # of advantages; 1: n-step returns
    unroll_length: PositiveInt = 16  # steps of each environment in a batch
    critic: Critic = Scalar()  # what is said of the return from a state
    value_cost: NonNegative = 0.5
    entropy_cost: NonNegative = 0.01
    max_gradient_norm: Positive = 0.5
    normalise_advantages: bool = False  # to mean 0 and deviation 1 over a batch
    normalise_observations: bool = False  # to mean 0 and deviation 1, running
    scale_rewards: bool = False  # by the running deviation of discounted returns

    def make(self, spec) -> Agent:
        network = networks.compose(
            spec,
            self.backbone,
            shared=self.shared,
            policy=networks.policy(spec),
            value=networks.ValueReturns(self.critic),
        )
        optimizer = clipped_adam(self.learning_rate, self.max_gradient_norm)
        agent = Agent(
            actor=PolicyActor(network),
            learner=A2C(network, optimizer, self),
            adder=Unrolls(self.unroll_length),
            evaluator=PolicyActor(network, greedy=True),
        )
        if self.normalise_observations:
            agent = normalise_observations(agent, spec)
        return scale_rewards(agent, self.discount) if self.scale_rewards else agent


class A2C(Learner):
    """Improves policy and value on unrolls, once each."""

    config: Config

    def loss(self, params, trajectory, key, state):
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        values = outputs.value
        advantage = generalised_advantages(
            trajectory.reward,
            config.discount * trajectory.discount,
            trajectory.trace(config.gae_lambda),
            jax.lax.stop_gradient(values),
        )
        targets = advantage + jax.lax.stop_gradient(values[:-1])
        said = jax.tree.map(lambda x: x[:-1], returns(outputs, "value", config.critic))
        value_loss = said.loss(certain(targets))
        if config.normalise_advantages:
            advantage = standardise(advantage, trajectory.weight)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        policy_loss = -policy.log_prob(trajectory.action) * advantage
        entropy = policy.entropy()
        loss = policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "value": values[:-1],
            "target": targets,
        }
