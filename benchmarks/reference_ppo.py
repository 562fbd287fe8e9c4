"""PPO as one writes it by hand for speed: acting and learning in one `lax.scan`, compiled once.

Schulman et al., 2017, "Proximal Policy Optimization Algorithms", https://arxiv.org/abs/1707.06347

A yardstick in the style that PureJaxRL made popular, with nothing that can be swapped: CartPole and
two tanh networks. Minimises, on minibatches of steps with standardised advantages A,

    -min(ratio A, clip(ratio) A) + value_cost max((V - G)^2, (clipped V - G)^2) / 2 - entropy_cost H

As usual in this style a time limit counts as the end of the episode.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlws.environments import CartPole
from rlws.types import Array, Key, Params

ENVIRONMENT = CartPole()
HIDDEN = (64, 64)
DISCOUNT, LAMBDA = 0.99, 0.95
CLIP = 0.2
VALUE_COST, ENTROPY_COST = 0.5, 0.01


class Settings(NamedTuple):
    """What a run does; all of it is static."""

    num_envs: int = 4
    unroll_length: int = 128
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 2.5e-3


class State(NamedTuple):
    """The whole state of a run; leaves of B environments are [B, ...]."""

    params: Params
    opt_state: Any
    environment: Any
    observation: Array
    key: Key


class Batch(NamedTuple):
    """What is learned from: steps [T, B, ...], or a minibatch of them [N, ...]."""

    observation: Array
    action: Array
    log_prob: Array
    value: Array
    advantage: Array


def optimizer(settings: Settings) -> optax.GradientTransformation:
    """Returns Adam behind a clipped global norm."""
    adam = optax.adam(settings.learning_rate, eps=1e-5)
    return optax.chain(optax.clip_by_global_norm(0.5), adam)


def init(settings: Settings, key: Key) -> State:
    """Returns the state before the first step."""
    policy_key, value_key, reset_key, run_key = jax.random.split(key, 4)
    policy = _mlp_init(policy_key, (4, *HIDDEN, 2), 0.01)
    params = {"policy": policy, "value": _mlp_init(value_key, (4, *HIDDEN, 1), 1.0)}
    environment, timestep = _reset(reset_key, settings.num_envs)
    opt_state = optimizer(settings).init(params)
    return State(params, opt_state, environment, timestep.observation, run_key)


def train(settings: Settings, state: State, iterations: int) -> tuple[State, Array]:
    """Acts and learns so many times; returns how many episodes ended in each iteration."""

    def iterate(state, _):
        state, batch, done = _act(settings, state)
        return _learn(settings, state, batch), done.sum()

    return jax.lax.scan(iterate, state, length=iterations)


def advantages(
    reward: Array, value: Array, done: Array, last_value: Array, discount: float, lambda_: float
) -> Array:
    """Returns generalised advantage estimates, [T, ...].

    Args:
      reward: of step t, [T, ...].
      value: before step t.
      done: whether step t ended an episode.
      last_value: after the last step, [...].
      discount: gamma.
      lambda_: of the trace.
    """

    def back(carry, step):
        advantage, next_value = carry
        reward, value, going_on = step
        error = reward + discount * going_on * next_value - value
        advantage = error + discount * lambda_ * going_on * advantage
        return (advantage, value), advantage

    start, steps = (jnp.zeros_like(last_value), last_value), (reward, value, 1.0 - done)
    return jax.lax.scan(back, start, steps, reverse=True)[1]


def loss(params: Params, batch: Batch) -> Array:
    """Returns PPO's loss on a minibatch, [N, ...]."""
    log_probs = jax.nn.log_softmax(_mlp(params["policy"], batch.observation))
    value = _mlp(params["value"], batch.observation)[:, 0]
    target = batch.advantage + batch.value
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    ratio = jnp.exp(_pick(log_probs, batch.action) - batch.log_prob)
    clipped_ratio = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    policy_loss = -jnp.minimum(ratio * advantage, clipped_ratio * advantage).mean()
    clipped_value = batch.value + jnp.clip(value - batch.value, -CLIP, CLIP)
    errors = jnp.maximum((value - target) ** 2, (clipped_value - target) ** 2)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return policy_loss + VALUE_COST * errors.mean() / 2 - ENTROPY_COST * entropy


def _act(settings: Settings, state: State) -> tuple[State, Batch, Array]:
    def step(state, _):
        key, act_key, reset_key = jax.random.split(state.key, 3)
        logits = _mlp(state.params["policy"], state.observation)
        value = _mlp(state.params["value"], state.observation)[:, 0]
        action = jax.random.categorical(act_key, logits)
        log_prob = _pick(jax.nn.log_softmax(logits), action)
        environment, timestep = jax.vmap(ENVIRONMENT.step)(state.environment, action)
        done = timestep.last()

        def restart():
            fresh, first = _reset(reset_key, settings.num_envs)
            choose = lambda new, old: jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old)
            old = environment, timestep.observation
            return jax.tree.map(choose, (fresh, first.observation), old)

        # A reset draws random numbers, and most steps of a few environments end no episode.
        keep = lambda: (environment, timestep.observation)
        environment, observation = jax.lax.cond(done.any(), restart, keep)
        seen = state.observation, action, log_prob, value, timestep.reward, done
        return state._replace(environment=environment, observation=observation, key=key), seen

    state, seen = jax.lax.scan(step, state, length=settings.unroll_length)
    observation, action, log_prob, value, reward, done = seen
    last_value = _mlp(state.params["value"], state.observation)[:, 0]
    advantage = advantages(reward, value, done, last_value, DISCOUNT, LAMBDA)
    return state, Batch(observation, action, log_prob, value, advantage), done


def _learn(settings: Settings, state: State, batch: Batch) -> State:
    transform = optimizer(settings)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

    def update(carry, minibatch):
        params, opt_state = carry
        grads = jax.grad(loss)(params, minibatch)
        updates, opt_state = transform.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(carry, key):
        order = jax.random.permutation(key, flat.action.shape[0])
        split = lambda x: x[order].reshape(settings.minibatches, -1, *x.shape[1:])
        return jax.lax.scan(update, carry, jax.tree.map(split, flat))

    key, *keys = jax.random.split(state.key, settings.epochs + 1)
    carry = state.params, state.opt_state
    (params, opt_state), _ = jax.lax.scan(epoch, carry, jnp.stack(keys))
    return state._replace(params=params, opt_state=opt_state, key=key)


def _reset(key: Key, num_envs: int) -> tuple[Any, Any]:
    return jax.vmap(ENVIRONMENT.reset)(jax.random.split(key, num_envs))


def _mlp_init(key: Key, sizes: tuple[int, ...], last_scale: float) -> Params:
    layers = list[tuple[Array, Array]]()
    keys = jax.random.split(key, len(sizes) - 1)
    for layer_key, inputs, outputs in zip(keys, sizes, sizes[1:], strict=False):
        scale = last_scale if len(layers) == len(sizes) - 2 else 2**0.5
        weights = jax.nn.initializers.orthogonal(scale)(layer_key, (inputs, outputs))
        layers.append((weights, jnp.zeros(outputs)))
    return layers


def _mlp(params: Params, x: Array) -> Array:
    for weights, bias in params[:-1]:
        x = jnp.tanh(x @ weights + bias[None])
    weights, bias = params[-1]
    return x @ weights + bias[None]


def _pick(x: Array, action: Array) -> Array:
    return jnp.take_along_axis(x, action[:, None], axis=1)[:, 0]
