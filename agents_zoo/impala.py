"""IMPALA: an actor-critic whose actors may act by older parameters than the learner has.

Espeholt et al., 2018, "IMPALA: scalable distributed deep-RL with importance weighted
actor-learner architectures". https://arxiv.org/abs/1802.01561

Minimises, with V-trace targets v_t (equation 1) and rho_t = min(rho_bar, pi / mu) the clipped ratio
of the policy to the one that acted,

    mean_t(-log pi(a_t | s_t) rho_t (r_t + gamma v_{t+1} - V(s_t))
           + value_cost * (V(s_t) - v_t)^2 / 2 - entropy_cost * H_t)

Departures from the paper: Adam instead of RMSProp, separate networks, normalised observations and
scaled rewards by default, means instead of sums over steps, traces of GAE's kind (lambda < 1). An
episode cut by a time limit is bootstrapped from its last observation. Where actors are never behind
(HostTrainer, DeviceTrainer) the ratios are 1 and this is A2C.
"""

import jax
import jax.numpy as jnp
import rlax

from rlws import networks
from rlws.actor import PolicyActor
from rlws.adders import Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, certain, returns
from rlws.learner import Learner
from rlws.networks import MLP, Backbone
from rlws.normalise import normalise_observations, scale_rewards
from rlws.numerics.optimizers import clipped_adam
from rlws.settings import Fraction, NonNegative, Positive, PositiveInt


class Config(AgentConfig):
    """Settings of IMPALA."""

    backbone: Backbone = MLP()  # of policy and value
    shared: bool = False  # one backbone for both
    learning_rate: Positive = 1e-3
    discount: Fraction = 0.99  # gamma, per step
    trace: Fraction = 0.95  # lambda of the traces c_t; the paper's is 1
    max_ratio: Positive = 1.0  # rho_bar, of targets and of the policy gradient
    unroll_length: PositiveInt = 16  # steps of each environment in a batch
    critic: Critic = Scalar()  # what is said of the return from a state
    value_cost: NonNegative = 0.5
    entropy_cost: NonNegative = 0.01
    max_gradient_norm: Positive = 0.5
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
        agent = Agent(
            actor=PolicyActor(network, log_prob=True),
            learner=Impala(network, optimizer, self),
            adder=Unrolls(self.unroll_length),
            evaluator=PolicyActor(network, greedy=True),
        )
        if self.normalise_observations:
            agent = normalise_observations(agent, spec)
        return scale_rewards(agent, self.discount) if self.scale_rewards else agent


class Impala(Learner):
    """Improves policy and value on unrolls, corrected for who acted in them."""

    config: Config

    def loss(self, params, trajectory, key, state):
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        log_prob = policy.log_prob(trajectory.action)
        ratio = jnp.exp(jax.lax.stop_gradient(log_prob) - trajectory.extras["log_prob"])
        values = outputs.value
        constant = jax.lax.stop_gradient(values)
        estimates = rlax.vtrace_td_error_and_advantage(
            constant[:-1],
            constant[1:],
            trajectory.reward,
            config.discount * trajectory.discount,
            ratio,
            trajectory.trace(config.trace),
            clip_rho_threshold=config.max_ratio,
            clip_pg_rho_threshold=config.max_ratio,
        )
        targets = constant[:-1] + estimates.errors
        said = jax.tree.map(lambda x: x[:-1], returns(outputs, "value", config.critic))
        value_loss = said.loss(certain(targets))
        policy_loss = -log_prob * estimates.pg_advantage
        entropy = policy.entropy()
        loss = policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            # Of the policy that acted to the one that learns: how far apart they are.
            "kl": ratio - 1.0 - (log_prob - trajectory.extras["log_prob"]),
            "ratio_clipped": (ratio > config.max_ratio).astype(jnp.float32),
            "value": values[:-1],
            "target": targets,
        }
