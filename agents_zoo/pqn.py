"""PQN: Q-learning from many environments at once, without replay and without a target network.

Gallici et al., 2024, "Simplifying deep temporal difference learning".
https://arxiv.org/abs/2407.04811

Minimises, over several epochs of minibatches of each batch of unrolls, with Peng's Q(lambda)
returns by the parameters of before these epochs (equation 8 and algorithm 1),

    mean((G_t - Q(s_t, a_t))^2 / 2),
    G_t = r_{t+1} + gamma ((1 - lambda) max_a Q(s_{t+1}, a) + lambda G_{t+1})

Layer normalisation is what makes that stable. Departures from the paper: Adam instead of RAdam;
with `cut`, returns go no further than actions that are the best (Watkins, 1989, which is tree
backup, and Retrace, of a greedy policy); what is said of a return is a part (`critic`). An episode
cut by a time limit is bootstrapped from its last observation.
"""

import jax
import jax.numpy as jnp

from rlws import networks
from rlws.actor import EpsilonGreedy, linear
from rlws.adders import Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, certain, returns
from rlws.learner import Learner, part_way
from rlws.networks import MLP, Backbone
from rlws.numerics.epochs import scan_minibatches, sequences
from rlws.numerics.optimizers import clipped_adam
from rlws.numerics.returns import traced_returns
from rlws.settings import Fraction, NonNegative, Positive, PositiveInt


class Config(AgentConfig):
    """Settings of PQN."""

    backbone: Backbone = MLP((120, 84), "relu", layer_norm=True)
    critic: Critic = Scalar()  # what is said of the return of an action
    learning_rate: Positive = 5e-4
    anneal_steps: PositiveInt | None = None  # environment steps until the rate is 0; None: never
    discount: Fraction = 0.99  # gamma, per step
    trace: Fraction = 0.65  # lambda
    cut: bool = False  # whether returns end where an action is not the best
    unroll_length: PositiveInt = 128  # steps of each environment in a batch
    epochs: PositiveInt = 4  # passes over a batch
    minibatches: PositiveInt = 4  # gradient steps in each
    sequence_length: PositiveInt = 16  # steps that gradients reach back through a recurrent core
    max_gradient_norm: Positive = 10.0
    epsilon_start: Fraction = 1.0  # probability of a random action, at first
    epsilon_end: Fraction = 0.05
    epsilon_steps: PositiveInt = 250_000  # environment steps from one to the other
    noise: NonNegative = 0.0  # of the last layer's weights, at first

    def make(self, spec) -> Agent:
        num_actions = networks.ActionValues.of(spec).num_actions
        head = networks.ActionReturns(num_actions, self.critic, noise=self.noise)
        network = networks.compose(spec, self.backbone, q=head)
        schedule = self.epsilon_start, self.epsilon_end, self.epsilon_steps
        return Agent(
            actor=EpsilonGreedy(network, *schedule),
            learner=PQN(network, clipped_adam(self.learning_rate, self.max_gradient_norm), self),
            adder=Unrolls(self.unroll_length),
            evaluator=EpsilonGreedy(network, 0.0, 0.0, 1, greedy=True),
        )


class PQN(Learner):
    """Moves action values towards Q(lambda) returns of unrolls, minibatch by minibatch."""

    config: Config

    def init(self, key):
        return super().init(key)._replace(extra=jnp.float32(0))  # environment steps learned from

    def update(self, state, batch, key):
        config = self.config
        samples = jax.vmap(self.samples, in_axes=(None, 0))(state.params, batch)
        # Each step is a sample of its own, but for a core, whose state was recorded with each step.
        length = config.sequence_length if self.network.recurrent else 1
        samples = sequences(samples, length, config.minibatches)

        def step(state, minibatch, key):
            after, metrics = super(PQN, self).update(state, minibatch, key)
            if config.anneal_steps is not None:
                rate = linear(1.0, 0.0, config.anneal_steps, state.extra)
                after, metrics = part_way(state, after, metrics, rate)
            return after, metrics

        passes = config.epochs, config.minibatches
        after, metrics = scan_minibatches(step, state, samples, key, *passes)
        learned_from = jnp.sum(batch.weight > 0).astype(jnp.float32)
        metrics = jax.tree.map(jnp.mean, metrics)
        return after._replace(extra=state.extra + learned_from), metrics

    def samples(self, params, trajectory):
        """Returns a trajectory without its last observation; extras have the returns, [T]."""
        config = self.config
        q = self.network.unroll(params, trajectory).q
        trace = trajectory.trace(config.trace)
        if config.cut:
            best = jnp.argmax(q[1:-1], axis=-1) == trajectory.action[1:]
            trace = trace * jnp.append(best, False)
        targets = traced_returns(
            trajectory.reward,
            config.discount * trajectory.discount,
            trace,
            q[1:].max(axis=-1),
        )
        return trajectory.without_final()._replace(extras={**trajectory.extras, "return": targets})

    def loss(self, params, trajectory, key, state):
        outputs = self.network.unroll(params, trajectory, key)
        said = returns(outputs, "q", self.config.critic).take(trajectory.action)
        value, target = said.mean(), trajectory.extras["return"]
        return said.loss(certain(target)), {
            "q": value,
            "td_error": jnp.abs(target - value),
            "value": value,
            "target": target,
        }
