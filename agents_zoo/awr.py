"""AWR: regression of the policy on what was done, by how much better than expected it was.

Peng et al., 2019, "Advantage-weighted regression: simple and scalable off-policy reinforcement
learning". https://arxiv.org/abs/1910.00177

Minimises on sequences of a replay, with TD(lambda) returns G_t of them and A_t = G_t - V(s_t),

    (V(s_t) - G_t)^2 / 2
    -log pi(a_t | s_t) min(exp(A_t / beta), omega)

(algorithm 1), omega being `max_weight`. Departures from the paper: both are minimised in one
step; returns are of sequences of `sequence_length` steps, bootstrapped behind their last one, and
not of whole episodes; advantages are standardised over a batch, as in the authors' code. An episode
cut by a time limit is bootstrapped from its last observation.
"""

import jax
import jax.numpy as jnp

from rlws import networks
from rlws.actor import PolicyActor
from rlws.adders import Replay
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
    """Settings of AWR."""

    backbone: Backbone = MLP((128, 64), "relu")  # of policy and value
    shared: bool = False  # one backbone for both
    learning_rate: Positive = 1e-3
    discount: Fraction = 0.99  # gamma, per step
    td_lambda: Fraction = 0.95  # of returns
    critic: Critic = Scalar()  # what is said of the return from a state
    value_cost: NonNegative = 1.0
    temperature: Positive = 1.0  # beta: how much better counts e times as much
    max_weight: Positive = 20.0  # omega
    normalise_advantages: bool = True  # to mean 0 and deviation 1 over a batch
    max_gradient_norm: Positive = 10.0
    capacity: PositiveInt = 50_000  # steps of the replay
    min_size: PositiveInt = 1_000  # steps before the first update
    batch_size: PositiveInt = 16  # sequences
    sequence_length: PositiveInt = 32  # steps
    period: PositiveInt = 4  # environment steps between turns of learning
    updates: PositiveInt = 1  # in a turn
    normalise_observations: bool = True  # to mean 0 and deviation 1, running
    scale_rewards: bool = True  # by the running deviation of discounted returns

    def make(self, spec) -> Agent:
        network = networks.compose(
            spec,
            self.backbone,
            shared=self.shared,
            policy=networks.policy(spec),
            value=networks.ValueReturns(self.critic),
        )
        optimizer = clipped_adam(self.learning_rate, self.max_gradient_norm)
        replay = Replay.of(self, length=self.sequence_length)
        agent = Agent(
            actor=PolicyActor(network),
            learner=AWR(network, optimizer, self),
            adder=replay,
            evaluator=PolicyActor(network, greedy=True),
        )
        if self.normalise_observations:
            agent = normalise_observations(agent, spec)
        return scale_rewards(agent, self.discount) if self.scale_rewards else agent


class AWR(Learner):
    """Improves policy and value on sequences, whoever acted in them."""

    config: Config

    def loss(self, params, trajectory, key, state):
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        constant = jax.lax.stop_gradient(outputs.value)
        advantage = generalised_advantages(
            trajectory.reward,
            config.discount * trajectory.discount,
            trajectory.trace(config.td_lambda),
            constant,
        )
        target = advantage + constant[:-1]
        said = returns(outputs, "value", config.critic)
        said, policy = jax.tree.map(lambda x: x[:-1], (said, outputs.policy))
        value_loss = said.loss(certain(target))
        if config.normalise_advantages:
            advantage = standardise(advantage, trajectory.weight)
        weight = jnp.exp(jnp.minimum(advantage / config.temperature, jnp.log(config.max_weight)))
        policy_loss = -weight * policy.log_prob(trajectory.action)
        return policy_loss + config.value_cost * value_loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "weight": weight,
            "entropy": policy.entropy(),
            "value": outputs.value[:-1],
            "target": target,
        }
