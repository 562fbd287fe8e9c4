"""V-MPO: imitates the better half of what was done, and moves not far from who did it.

Song et al., 2020, "V-MPO: on-policy maximum a posteriori policy optimization for discrete and
continuous control". https://arxiv.org/abs/1909.12238

Minimises on each batch, with advantages A and targets G = A + V_old of it, D~ the half of its steps
of highest A and weights w = exp(A / eta) / sum_D~ exp(A / eta), several times the sum of

    (V(s) - G)^2 / 2
    -sum_D~ w log pi(a | s) + mean(alpha_i KL_i(pi_old || pi))             by the policy
    eta epsilon + eta log mean_D~ exp(A / eta)                             by the temperature eta
    mean(alpha_i (epsilon_i - KL_i(pi_old || pi)))                         by the prices alpha_i

(equations 3 to 5), where i is the policy, or, of continuous actions, its mean and its deviation.
Departures from the paper: pi_old is who acted in the batch, which gets `epochs` gradient steps, and
not a target network of some updates; advantages are generalised (gae_lambda = 1 is the paper's) and
standardised; rewards are scaled, not values (PopArt); gradients are clipped. An episode cut by a
time limit is bootstrapped from its last observation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agents_zoo.mpo import bounded
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

DUALS = "log_temperature", "log_prices"


class Config(AgentConfig):
    """Settings of V-MPO."""

    backbone: Backbone = MLP()  # of policy and value
    shared: bool = False  # one backbone for both
    learning_rate: Positive = 1e-3
    dual_learning_rate: Positive = 1e-2  # of temperature and prices, which are learned as logs
    discount: Fraction = 0.99  # gamma, per step
    gae_lambda: Fraction = 0.95  # of advantages
    unroll_length: PositiveInt = 128  # steps of each environment in a batch
    epochs: PositiveInt = 20  # gradient steps on a batch
    critic: Critic = Scalar()  # what is said of the return from a state
    value_cost: NonNegative = 0.5
    temperature: Positive = 1.0  # eta, at first
    epsilon: Positive = 0.1  # nats that weights may differ from uniform ones
    epsilon_policy: Positive = (
        0.01  # nats that the policy may move in a batch; of normal ones: mean
    )
    epsilon_deviation: Positive = 1e-3  # likewise the deviation of normal ones
    price: Positive = 1.0  # alpha, at first
    max_gradient_norm: Positive = 0.5
    normalise_advantages: bool = True  # to mean 0 and deviation 1 over a batch
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
        steps = {
            "dual": optax.adam(self.dual_learning_rate),
            "other": clipped_adam(self.learning_rate, self.max_gradient_norm),
        }
        real = [np.issubdtype(x.dtype, np.floating) for x in jax.tree.leaves(spec.actions)]
        parts = 2 if any(real) else 1
        agent = Agent(
            actor=PolicyActor(network),
            learner=VMPO(network, optax.partition(steps, _labels), parts, self),
            adder=Unrolls(self.unroll_length),
            evaluator=PolicyActor(network, greedy=True),
        )
        if self.normalise_observations:
            agent = normalise_observations(agent, spec)
        return scale_rewards(agent, self.discount) if self.scale_rewards else agent


def _labels(params):
    return {name: "dual" if name in DUALS else "other" for name in params}


class VMPO(Learner):
    """Improves policy, value, temperature and prices on unrolls, several times."""

    parts: PositiveInt  # of the policy, whose changes are bounded apart
    config: Config

    def init_params(self, key):
        config = self.config
        return {
            **super().init_params(key),
            "log_temperature": jnp.log(jnp.float32(config.temperature)),
            "log_prices": jnp.log(jnp.full(self.parts, config.price, jnp.float32)),
        }

    def update(self, state, batch, key):
        samples = jax.vmap(self.samples, in_axes=(None, 0))(state.params, batch)

        def step(state, key):
            return super(VMPO, self).update(state, samples, key)

        state, metrics = jax.lax.scan(step, state, jax.random.split(key, self.config.epochs))
        last = {"policy_kl", "deviation_kl"} & metrics.keys()  # how far it went in all
        return state, {k: x[-1] if k in last else x.mean() for k, x in metrics.items()}

    def samples(self, params, trajectory):
        """Returns a trajectory without its last observation; extras are what the loss needs."""
        config = self.config
        outputs = self.network.unroll(params, trajectory)
        advantage = generalised_advantages(
            trajectory.reward,
            config.discount * trajectory.discount,
            trajectory.trace(config.gae_lambda),
            outputs.value,
        )
        extras = {
            "policy": jax.tree.map(lambda x: x[:-1], outputs.policy),
            "advantage": advantage,
            "return": advantage + outputs.value[:-1],
        }
        return trajectory.without_final()._replace(extras={**trajectory.extras, **extras})

    def loss(self, params, trajectory, key, state):
        config, extras, real = self.config, trajectory.extras, trajectory.weight > 0
        outputs = self.network.unroll(params, trajectory)
        value_loss = returns(outputs, "value", config.critic).loss(certain(extras["return"]))
        advantage = extras["advantage"]
        if config.normalise_advantages:
            advantage = standardise(advantage, trajectory.weight)
        weight, temperature_loss = best_half(
            advantage, real, params["log_temperature"], config.epsilon
        )
        policy_loss = -weight * outputs.policy.log_prob(trajectory.action)
        divergences = extras["policy"].divergences(outputs.policy)  # [T, parts]
        limits = jnp.asarray([config.epsilon_policy, config.epsilon_deviation][: self.parts])
        bound_loss = bounded(divergences, params["log_prices"], limits)
        loss = policy_loss + config.value_cost * value_loss + temperature_loss + bound_loss
        names = ("policy_kl", "deviation_kl")[: self.parts]
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": outputs.policy.entropy(),
            "temperature": jnp.exp(params["log_temperature"]),
            "value": outputs.value,
            "target": extras["return"],
            **{name: divergences[:, i] for i, name in enumerate(names)},
        }


def best_half(advantage, real, log_temperature, epsilon):
    """Returns how much each step [T] counts, of a mean of 1, and the temperature's loss, [].

    Of the steps of the whole batch that are `real` [T], those below the median count for nothing.
    """
    temperature = jnp.exp(log_temperature)
    every = jax.lax.all_gather(jnp.where(real, advantage, jnp.nan), "batch")
    median = jnp.nanmedian(every)
    best = every >= median  # not of NaN
    log_total = jax.nn.logsumexp(jnp.where(best, every, 0.0) / temperature, where=best)
    log_mean = log_total - jnp.log(best.sum())
    share = jnp.where(real & (advantage >= median), advantage, -jnp.inf) / temperature
    weight = jnp.isfinite(every).sum() * jnp.exp(share - log_total)
    return jax.lax.stop_gradient(weight), temperature * (epsilon + log_mean)
