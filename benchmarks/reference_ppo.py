"""PPO as one writes it by hand for speed: acting and learning in one `lax.scan`, compiled once.

Schulman et al., 2017, "Proximal Policy Optimization Algorithms", https://arxiv.org/abs/1707.06347

A yardstick in the style that PureJaxRL made popular: two networks, of tanh layers or, for images,
of relu layers behind a convolution. Minimises, on minibatches of steps with standardised advantages
A,

    -min(ratio A, clip(ratio) A) + value_cost max((V - G)^2, (clipped V - G)^2) / 2 - entropy_cost H

As usual in this style a time limit counts as the end of the episode.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlws.environments import CartPole, JaxEnvironment
from rlws.networks.convolution import convolved
from rlws.types import Array, Key, Params

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
    hidden: tuple[int, ...] = (64, 64)
    channels: int = 0  # of a 3x3 convolution before them; 0: none
    environment: JaxEnvironment = CartPole()


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
    actions = settings.environment.spec().actions.num_values
    params = {
        "policy": _network_init(policy_key, settings, actions, 0.01),
        "value": _network_init(value_key, settings, 1, 1.0),
    }
    environment, timestep = _reset(reset_key, settings)
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
    log_probs = jax.nn.log_softmax(_network(params["policy"], batch.observation))
    value = _network(params["value"], batch.observation)[:, 0]
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
        logits = _network(state.params["policy"], state.observation)
        value = _network(state.params["value"], state.observation)[:, 0]
        action = jax.random.categorical(act_key, logits)
        log_prob = _pick(jax.nn.log_softmax(logits), action)
        environment, timestep = jax.vmap(settings.environment.step)(state.environment, action)
        done = timestep.last()

        def restart():
            fresh, first = _reset(reset_key, settings)
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
    last_value = _network(state.params["value"], state.observation)[:, 0]
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


def _reset(key: Key, settings: Settings) -> tuple[Any, Any]:
    return jax.vmap(settings.environment.reset)(jax.random.split(key, settings.num_envs))


def _network_init(key: Key, settings: Settings, outputs: int, last_scale: float) -> Params:
    *image, inputs = settings.environment.spec().observations.shape
    kernels, sizes = list[tuple[int, ...]](), (*settings.hidden, outputs)
    if settings.channels:
        kernels, (height, width) = [(3, 3, inputs, settings.channels)], image
        inputs = (height - 2) * (width - 2) * settings.channels
    kernels += zip((inputs, *settings.hidden), sizes, strict=True)
    layers = list[tuple[Array, Array]]()
    for layer_key, shape in zip(jax.random.split(key, len(kernels)), kernels, strict=True):
        scale = last_scale if len(layers) == len(kernels) - 1 else 2**0.5
        weights = jax.nn.initializers.orthogonal(scale)(layer_key, shape)
        layers.append((weights, jnp.zeros(shape[-1])))
    return layers


def _network(params: Params, x: Array) -> Array:
    images = params[0][0].ndim == 4
    if images:
        kernel, bias = params[0]
        x = jax.vmap(convolved, (0, None))(x, kernel)
        x = jax.nn.relu(x + bias[None, None, None]).reshape(len(x), -1)
    for weights, bias in params[images:-1]:
        x = x @ weights + bias[None]
        x = jax.nn.relu(x) if images else jnp.tanh(x)
    weights, bias = params[-1]
    return x @ weights + bias[None]


def _pick(x: Array, action: Array) -> Array:
    return jnp.take_along_axis(x, action[:, None], axis=1)[:, 0]
