"""REINFORCE: the Monte Carlo policy gradient.

Williams, 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning", Machine Learning 8. https://doi.org/10.1007/BF00992696

Minimises, for an episode of T steps with returns G_t = r_{t+1} + discount * G_{t+1},

    sum_t -log pi(a_t | s_t) (G_t - b_t) - entropy_cost * H_t + (G_t - V(s_t))^2 / 2

averaged over the episodes of a batch. The sum over an episode is never divided by its length: that
would weigh short episodes more, and no longer be the gradient of the expected return.

Departures from the paper: returns to go instead of the episode's return, a learned value as
baseline by default, fitted by several gradient steps an update, and Adam. With the value baseline
an episode cut by a time limit continues with V of its final observation; without it, the time limit
counts as the end.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax
import rlax

from rlws import networks
from rlws.actor import PolicyActor
from rlws.adders import Episodes
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.networks import MLP, Backbone
from rlws.numerics.means import standardise
from rlws.settings import Fraction, NonNegative, Positive, PositiveInt, SettingError

Baseline = Literal["none", "moving_average", "value"]


class Config(AgentConfig):
    """Settings of REINFORCE."""

    backbone: Backbone = MLP()  # of the policy, and again of the value
    learning_rate: Positive = 3e-3  # of the policy
    value_learning_rate: Positive = 1e-2  # of the value baseline
    value_steps: PositiveInt = 5  # gradient steps on the value baseline, for one on the policy
    discount: Fraction = 0.99  # gamma, per step
    discounted_gradient: bool = False  # weigh step t by discount^t: see Reinforce
    baseline: Baseline = "value"  # what returns are compared with
    baseline_decay: Fraction = 0.9  # of the moving average, per update
    entropy_cost: NonNegative = 0.005  # how much a spread-out policy is worth
    normalise_advantages: bool = True  # to mean 0 and deviation 1 over the batch
    episodes_per_update: PositiveInt = 8  # the batch
    max_episode_length: PositiveInt | None = None  # steps; default: the environment's time limit

    def make(self, spec) -> Agent:
        max_length = self.max_episode_length or spec.max_episode_steps
        if max_length is None:
            raise SettingError(
                "the environment has no time limit, so REINFORCE needs to know how long an episode "
                "may get; set max_episode_length, for example to 1000"
            )
        heads: dict[str, Callable] = {"policy": networks.policy(spec)}
        if self.baseline == "value":
            heads["value"] = networks.Value()
        # Apart, so that fitting returns of any size does not disturb the policy.
        network = networks.compose(spec, self.backbone, shared=False, **heads)
        rates = {"policy": self.learning_rate, "value": self.value_learning_rate}
        optimizer = optax.partition({k: optax.adam(rate) for k, rate in rates.items()}, _label)
        return Agent(
            actor=PolicyActor(network),
            learner=Reinforce(network, optimizer, self),
            adder=Episodes(self.episodes_per_update, max_length),
            evaluator=PolicyActor(network, greedy=True),
        )


def _label(params):
    return {name: _head(name) for name in params}


def _head(module):
    # Haiku names modules after their heads: policy/linear, policy_backbone/linear, value/linear ...
    return "value" if module.startswith("value") else "policy"


class Reinforce(Learner):
    """Follows the policy gradient estimated from whole episodes.

    With discount < 1 the exact gradient of the discounted return weighs step t by discount^t
    (`discounted_gradient`). Without, as almost everywhere in practice, late steps count as much as
    early ones: a biased gradient that learns faster in long episodes.
    """

    config: Config

    def init(self, key):
        return super().init(key)._replace(extra=jnp.float32(0))  # the moving-average baseline

    def loss(self, params, trajectory, key, state):
        config, steps = self.config, trajectory.reward.shape[0]
        outputs = self.network.unroll(params, trajectory)
        values = outputs.value if config.baseline == "value" else jnp.zeros(steps + 1)
        returns = rlax.lambda_returns(
            trajectory.reward,
            config.discount * trajectory.discount,
            jax.lax.stop_gradient(values[1:]),
            trajectory.trace(),
        )
        baseline = state.extra if config.baseline == "moving_average" else values[:-1]
        advantage = jax.lax.stop_gradient(returns - baseline)
        if config.normalise_advantages:
            advantage = standardise(advantage, trajectory.weight)
        weight = trajectory.weight
        if config.discounted_gradient:
            weight *= config.discount ** jnp.arange(steps)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        entropy = policy.entropy()
        policy_loss = -jnp.sum(weight * policy.log_prob(trajectory.action) * advantage)
        entropy_loss = -jnp.sum(weight * entropy)
        value_loss = jnp.sum(trajectory.weight * rlax.l2_loss(values[:-1], returns))
        loss = policy_loss + config.entropy_cost * entropy_loss
        metrics = {
            "policy_loss": policy_loss,
            "entropy": entropy,
            "return_to_go": returns,
        }
        if config.baseline == "value":
            loss += value_loss
            metrics["value_loss"] = value_loss
            metrics |= {"value": values[:-1], "target": returns}
        return loss, metrics

    def update(self, state, batch, key):
        key, more_key = jax.random.split(key)
        updated, metrics = super().update(state, batch, key)
        if self.config.baseline == "value" and self.config.value_steps > 1:
            updated = self._fitted(updated, batch, more_key)
        # Moves after the update: a baseline that has seen the return it is compared with is biased.
        decay = jnp.where(state.updates == 0, 0.0, self.config.baseline_decay)
        extra = decay * state.extra + (1 - decay) * metrics["return_to_go"]
        return updated._replace(extra=extra), metrics

    def _fitted(self, state, batch, key):
        """Returns the state after more steps on the value; XLA leaves the policy's part out."""

        def own(path, new, old):
            return new if any(_head(str(getattr(x, "key", ""))) == "value" for x in path) else old

        def step(state, key):
            after, _ = super(Reinforce, self).update(state, batch, key)
            fit = lambda new, old: jax.tree.map_with_path(own, new, old)
            params, opt_state = map(fit, (after.params, after.opt_state), state[:2])
            return after._replace(params=params, opt_state=opt_state), None

        keys = jax.random.split(key, self.config.value_steps - 1)
        return jax.lax.scan(step, state, keys)[0]
