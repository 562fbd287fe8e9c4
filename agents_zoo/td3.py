"""TD3: a deterministic policy with twin critics, delayed and smoothed.

Fujimoto, van Hoof and Meger, 2018, "Addressing function approximation error in actor-critic
methods". https://arxiv.org/abs/1802.09477

Minimises, for transitions (s, a, r, s') of a replay, with targets marked ',

    sum_i (Q_i(s, a) - (r + gamma min_j Q'_j(s', a')))^2 / 2,   a' = mu'(s') + clipped noise
    -Q_1(s, mu(s))                                               every `policy_period` updates

(algorithm 1), each with respect to its own parameters. Departure from the paper: both are minimised
in one step, so the policy learns from the critics of the step before. An episode cut by a time
limit is bootstrapped from its last observation. What a critic says of a return is a part
(`critic`); of several, targets are made of what the one of lowest mean says.
"""

import jax
import jax.numpy as jnp
import optax
from dm_env import specs

from rlws import networks
from rlws.actor import Actor, count_steps
from rlws.adders import Replay
from rlws.agent import Agent, AgentConfig
from rlws.critics import Critic, Scalar, returns
from rlws.learner import Learner, delayed
from rlws.networks import MLP, Backbone, Network, heads, policy_params
from rlws.settings import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt


class Config(AgentConfig):
    """Settings of TD3. Noise is in units of half the range of each action component."""

    backbone: Backbone = MLP((256, 256), "relu")  # of the policy and of each critic
    encoder: Backbone | None = None  # of pictures, one before all of them; only critics teach it
    learning_rate: Positive = 3e-4  # of the policy
    critic_learning_rate: Positive = 3e-4
    critic: Critic = Scalar()  # what is said of the return of an action
    discount: Fraction = 0.99  # gamma, per step
    target_rate: Fraction = 0.005  # how far targets move towards the networks, per policy update
    exploration_noise: NonNegative = 0.1  # deviation, of actions taken
    target_noise: NonNegative = 0.2  # deviation, of actions in targets
    target_noise_clip: NonNegative = 0.5
    policy_period: PositiveInt = 2  # updates of the critics for one of the policy
    critics: PositiveInt = 2
    capacity: PositiveInt = 1_000_000  # steps of the replay
    min_size: PositiveInt = 1_000  # steps before the first update
    random_steps: NonNegativeInt = 1_000  # environment steps with uniform actions, at first
    batch_size: PositiveInt = 256
    period: PositiveInt = 1  # environment steps between turns of learning
    updates: PositiveInt = 1  # in a turn
    n_step: PositiveInt = 1

    def make(self, spec) -> Agent:
        head = networks.TanhPolicy(spec.actions)
        policy, critics = networks.behind(
            spec,
            self.encoder,
            lambda seen: networks.compose(seen, self.backbone, action=head),
            lambda seen: networks.critics(seen, self.backbone, self.critics, self.critic),
        )
        rates = {"policy": self.learning_rate, "other": self.critic_learning_rate}
        optimizer = optax.partition({k: optax.adam(rate) for k, rate in rates.items()}, _labels)
        actor = NoisyActor(policy, spec.actions, self.exploration_noise, self.random_steps)
        return Agent(
            actor=actor,
            learner=TD3(policy, optimizer, critics, actor, self),
            adder=Replay.of(self),
            evaluator=NoisyActor(policy, spec.actions, 0.0, 0),
        )


def _labels(params):
    return {name: name if name == "policy" else "other" for name in params}


class NoisyActor(Actor):
    """Acts uniformly within the bounds for a while, then by the policy, with normal noise."""

    network: Network
    actions: specs.BoundedArray
    noise: NonNegative
    random_steps: NonNegativeInt

    def initial_state(self):
        return jnp.int32(0)

    def select_action(self, params, timestep, state, key):
        count, now = count_steps(state, timestep)
        noise_key, uniform_key = jax.random.split(key)
        action = self.network.apply(policy_params(params), timestep.observation).action
        noise = self.noise * jax.random.normal(noise_key, action.shape)
        uniform = heads.uniform(self.actions, uniform_key)
        action = jnp.where(now < self.random_steps, uniform, self.moved(action, noise))
        return action, count, {}

    def unit(self, action):
        """Returns actions [..., n] with the middle of their bounds at 0 and the bounds at 1."""
        centre, half_range = self._bounds(action)
        return (action - centre) / half_range

    def _bounds(self, action):
        bounds = heads.bounds(self.actions, finite=True)
        return (jnp.broadcast_to(x, action.shape) for x in bounds)

    def moved(self, action, noise):
        """Returns actions [..., n] moved by noise, in half ranges, and kept within the bounds."""
        centre, half_range = self._bounds(action)
        moved = action + half_range * noise
        return jnp.clip(moved, centre - half_range, centre + half_range)


class TD3(Learner):
    """Improves policy and critics on transitions."""

    critic: Network
    actor: NoisyActor
    config: Config

    def init_params(self, key):
        policy_key, critic_key = jax.random.split(key)
        return {"policy": self.network.init(policy_key), "critic": self.critic.init(critic_key)}

    def init(self, key):
        state = super().init(key)
        return state._replace(extra=jax.tree.map(jnp.copy, state.params))  # the targets

    def update(self, state, batch, key):
        after, metrics = super().update(state, batch, key)
        # Count critic updates from 1: with period 2, the first policy update is the second.
        turn = after.updates % self.config.policy_period == 0
        after = delayed(state, after, turn, ("policy",))
        moved = optax.incremental_update(after.params, state.extra, self.config.target_rate)
        extra = jax.tree.map(lambda x, y: jnp.where(turn, x, y), moved, state.extra)
        return after._replace(extra=extra), metrics

    def value(self, params, trajectory):
        action = self.network.apply(policy_params(params), trajectory.observation).action
        pair = trajectory.observation, action
        return self.critic.apply(params["critic"], pair).value.min(axis=-1)

    def loss(self, params, trajectory, key, state):
        config, constant = self.config, jax.lax.stop_gradient(params)
        observation = trajectory.without_final().observation
        key, *keys = jax.random.split(key, 4)

        following = policy_params(state.extra)
        next_action = self.network.unroll_following(following, trajectory).action
        noise = config.target_noise * jax.random.normal(key, next_action.shape)
        noise = jnp.clip(noise, -config.target_noise_clip, config.target_noise_clip)
        next_observation = jax.tree.map(lambda x: x[1:], trajectory.observation)
        next_pair = next_observation, self.actor.moved(next_action, noise)
        next_returns = returns(self.critic(state.extra["critic"], next_pair, keys[0]), "value")
        discount = config.discount * trajectory.discount
        targets = next_returns.lowest().moved(trajectory.reward, discount)
        outputs = self.critic(params["critic"], (observation, trajectory.action), keys[1])
        critic_loss = returns(outputs, "value").loss(targets.for_each()).sum(axis=-1)

        action = self.network.apply(policy_params(params), observation).action
        # Constant parameters: the policy's loss reaches the critics' input and not the critics.
        policy_loss = -self.critic(constant["critic"], (observation, action), keys[2]).value[..., 0]
        q = outputs.value.mean(axis=-1)
        return critic_loss + policy_loss, {
            "q": q,
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "action": self.actor.unit(action),
            "value": q,
            "target": targets.mean(),
        }
