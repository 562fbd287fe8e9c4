"""PPO: several epochs of clipped policy gradients on each batch of unrolls.

Schulman et al., 2017, "Proximal policy optimization algorithms". https://arxiv.org/abs/1707.06347
Advantages: Schulman et al., 2016, "High-dimensional continuous control using generalized advantage
estimation". https://arxiv.org/abs/1506.02438

Minimises, with r = pi(a | s) / pi_old(a | s), advantages A of steps in the minibatch and targets
G = A + V_old(s),

    mean(-min(r A, clip(r, 1 - clip, 1 + clip) A) + value_cost (V(s) - G)^2 / 2 - entropy_cost H)

(equations 7 and 9). Departures from the paper, usual since its reference implementation: advantages
are standardised in each minibatch, gradients clipped by their global norm, Adam's epsilon is 1e-5.
An episode cut by a time limit goes on in value: it is bootstrapped from its last observation.
"""

import jax
import jax.numpy as jnp

from rlws import networks
from rlws.actor import PolicyActor, linear
from rlws.adders import Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, certain, returns
from rlws.learner import Learner, part_way
from rlws.networks import MLP, Backbone
from rlws.normalise import normalise_observations, scale_rewards
from rlws.numerics.epochs import scan_minibatches, sequences
from rlws.numerics.means import standardise
from rlws.numerics.optimizers import clipped_adam
from rlws.numerics.returns import generalised_advantages
from rlws.numerics.vitals import explained_variance
from rlws.settings import Fraction, NonNegative, Positive, PositiveInt, SettingError


class Config(AgentConfig):
    """Settings of PPO."""

    backbone: Backbone = MLP()  # of policy and value
    shared: bool = False  # one backbone for both
    std: Positive = 0.5  # of the first policy's continuous actions, in half ranges
    learning_rate: Positive = 5e-4
    anneal_steps: PositiveInt | None = None  # environment steps until the rate is 0; None: never
    critic: Critic = Scalar()  # what is said of the return from a state
    discount: Fraction = 0.99  # gamma, per step
    gae_lambda: Fraction = 0.95  # of advantages
    unroll_length: PositiveInt = 512  # steps of each environment in a batch
    epochs: PositiveInt = 10  # passes over a batch
    minibatches: PositiveInt = 32  # gradient steps in each
    sequence_length: PositiveInt = 16  # steps that gradients reach back through a recurrent core
    clip: Positive = 0.2  # of the probability ratio, around 1
    value_clip: Positive | None = None  # how far V may move from V_old for free; None: anywhere
    value_cost: NonNegative = 0.5
    entropy_cost: NonNegative = 0.0
    target_kl: Positive | None = None  # no more steps on a batch beyond this divergence from pi_old
    max_gradient_norm: Positive = 0.5
    normalise_advantages: bool = True  # to mean 0 and deviation 1 over a minibatch
    normalise_observations: bool = True  # to mean 0 and deviation 1, running
    scale_rewards: bool = True  # by the running deviation of discounted returns

    def make(self, spec) -> Agent:
        linear = isinstance(self.critic, Scalar) and self.critic.scale == "linear"
        if self.value_clip is not None and not linear:
            raise SettingError(
                f"value_clip needs the critic Scalar on a linear scale, got "
                f"{self.value_clip} with {self.critic}; leave value_clip out"
            )
        network = self.network(spec)
        optimizer = clipped_adam(self.learning_rate, self.max_gradient_norm, eps=1e-5)
        agent = Agent(
            actor=PolicyActor(network, log_prob=True),
            learner=self.learner(network, optimizer),
            adder=Unrolls(self.unroll_length),
            evaluator=PolicyActor(network, greedy=True),
        )
        if self.normalise_observations:
            agent = normalise_observations(agent, spec)
        return scale_rewards(agent, self.discount) if self.scale_rewards else agent

    def network(self, spec):
        """Returns the network of policy and value."""
        return networks.compose(
            spec,
            self.backbone,
            shared=self.shared,
            policy=networks.policy(spec, self.std),
            value=networks.ValueReturns(self.critic),
        )

    def learner(self, network, optimizer):
        """Returns what learns them."""
        return PPO(network, optimizer, self)


class PPO(Learner):
    """Improves policy and value on unrolls (leaves [B, T, ...]), minibatch by minibatch."""

    config: Config

    def init(self, key):
        return super().init(key)._replace(extra=jnp.float32(0))  # environment steps learned from

    def update(self, state, batch, key):
        config = self.config
        samples = jax.vmap(self.samples, in_axes=(None, 0))(state.params, batch)
        value, target = samples.extras["value"], samples.extras["return"]
        explained = explained_variance(value, target, batch.weight)
        # Each step is a sample of its own, but for a core, whose state was recorded with each step.
        length = config.sequence_length if self.network.recurrent else 1
        samples = sequences(samples, length, config.minibatches)

        def step(carry, minibatch, key):
            state, stopped = carry
            after, metrics = super(PPO, self).update(state, minibatch, key)
            if config.anneal_steps is not None:
                rate = linear(1.0, 0.0, config.anneal_steps, state.extra)
                after, metrics = part_way(state, after, metrics, rate)
            if config.target_kl is not None:
                stopped |= metrics["kl"] > config.target_kl
                keep = lambda old, new: jnp.where(stopped, old, new)
                after = jax.tree.map(keep, state, after)
                metrics["update_norm"] = keep(0.0, metrics["update_norm"])
            return (after, stopped), metrics

        begin = state, jnp.bool_(False)
        passes = config.epochs, config.minibatches
        (after, _), metrics = scan_minibatches(step, begin, samples, key, *passes)
        learned_from = jnp.sum(batch.weight > 0).astype(jnp.float32)
        metrics = jax.tree.map(jnp.mean, metrics) | {"explained_variance": explained}
        return after._replace(extra=state.extra + learned_from), metrics

    def samples(self, params, trajectory):
        """Returns a trajectory without its last observation; extras are what the loss needs."""
        config = self.config
        values = self.network.unroll(params, trajectory).value
        advantage = generalised_advantages(
            trajectory.reward,
            config.discount * trajectory.discount,
            trajectory.trace(config.gae_lambda),
            values,
        )
        targets = {"advantage": advantage, "value": values[:-1], "return": advantage + values[:-1]}
        return trajectory.without_final()._replace(extras={**trajectory.extras, **targets})

    def loss(self, params, trajectory, key, state):
        config, extras = self.config, trajectory.extras
        outputs = self.network.unroll(params, trajectory)
        advantage = extras["advantage"]
        if config.normalise_advantages:
            advantage = standardise(advantage, trajectory.weight)
        log_ratio = outputs.policy.log_prob(trajectory.action) - extras["log_prob"]
        ratio = jnp.exp(log_ratio)
        clipped = jnp.clip(ratio, 1.0 - config.clip, 1.0 + config.clip)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage)
        target = certain(extras["return"])
        value_loss = returns(outputs, "value", config.critic).loss(target)
        if config.value_clip is not None:
            change = outputs.value - extras["value"]
            near = extras["value"] + jnp.clip(change, -config.value_clip, config.value_clip)
            value_loss = jnp.maximum(value_loss, certain(near, config.critic).loss(target))
        entropy = outputs.policy.entropy()
        loss = policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy
        return loss, {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            # Schulman, 2020, "Approximating KL divergence": unbiased, and never negative.
            "kl": ratio - 1.0 - log_ratio,
            "clipped": jnp.float32(jnp.abs(ratio - 1.0) > config.clip),
        }
