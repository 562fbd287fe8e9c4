"""Evaluation: whole episodes of a fixed policy, in environments of their own."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws import environments, streams
from rlws.actor import Actor
from rlws.agent import Agent
from rlws.environments import JaxEnvironment, resolve
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.players import splitter
from rlws.types import Key, Params

MAX_STEPS = 10_000  # of an episode whose environment has no time limit
HOST_ENVS = 10

Evaluate = Callable[[Params, int], tuple[np.ndarray, np.ndarray]]


def evaluator(agent: Agent, environment: Any, episodes: int) -> Evaluate:
    """Returns a function of parameters and a seed: returns and lengths of `episodes` episodes.

    With the same seed it plays the same episodes (same initial states, same random numbers), so
    that two calls differ by their policies only. Evaluation has random streams of its own, and what
    an episode draws depends on its number alone. Every episode is played to its end, or to
    `MAX_STEPS` where the environment has no time limit.

    Args:
      agent: its `evaluator` acts.
      environment: as for `Trainer.train`; a JaxEnvironment is run in one compiled program.
      episodes: how many to play, all begun at once on the device, `HOST_ENVS` at a time on a host.
    """
    if resolve.is_jax(environment):
        play = jax.jit(device_play(agent, resolve.device(environment), episodes))
        return lambda params, seed: jax.device_get(play(params, *_keys(seed)))
    return _host_play(agent, environment, episodes)


def _seed(seed: int) -> int:
    return streams.host_seed(seed, Stream.EVALUATION)


def _keys(seed: int) -> tuple[Key, Key]:
    own = _seed(seed)
    return streams.key(own, Stream.ACT), streams.key(own, Stream.ENVIRONMENT)


def _act(actor: Actor, params, act_key, episode, step, timestep, state):
    """Acts in B episodes, by number, at one step or each at its own; actions and actor states."""
    return cycle.act(actor, params, act_key, step, timestep, state, episode)[:2]


def device_play(agent: Agent, environment: JaxEnvironment, episodes: int) -> Callable:
    """Returns a pure function: parameters, keys of actions and of resets to returns, lengths."""
    spec = environment.spec()
    limit, numbers = spec.max_episode_steps or MAX_STEPS, jnp.arange(episodes)

    def play(params, act_key, reset_key):
        def playing(carry):
            _, timestep, _, step, _, _ = carry
            return (step < limit) & ~timestep.last().all()

        def step(carry):
            state, timestep, actor_state, step, returns, lengths = carry
            arguments = params, act_key, numbers, step, timestep, actor_state
            action, actor_state = _act(agent.evaluator, *arguments)
            live = ~timestep.last()
            action = environments.clip_actions(spec.actions, action, jnp)
            state, following = jax.vmap(environment.step)(state, action)
            # Once LAST, always LAST: what an ended environment does no longer counts.
            step_type = jnp.where(live, following.step_type, dm_env.StepType.LAST)
            returns = returns + jnp.where(live, following.reward, 0.0)
            timestep = following._replace(step_type=step_type)
            return state, timestep, actor_state, step + 1, returns, lengths + live

        keys = jax.vmap(lambda index: environments.episode_key(reset_key, index, 0))(numbers)
        state, timestep = jax.vmap(environment.reset)(keys)
        actor_state = cycle.initial_actor_state(agent.evaluator, episodes)
        zeros = jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32)
        carry = (state, timestep, actor_state, jnp.int32(0), *zeros)
        return jax.lax.while_loop(playing, step, carry)[-2:]

    return play


def _host_play(agent: Agent, environment: Any, episodes: int) -> Evaluate:
    act = jax.jit(partial(_act, agent.evaluator))

    def evaluate(params, seed):
        with contextlib.ExitStack() as stack:
            count = min(HOST_ENVS, episodes)
            envs = [resolve.host(environment, _seed(seed), index) for index in range(count)]
            for env in envs:
                stack.callback(env.close)
            return _play_all(partial(act, params, _keys(seed)[0]), agent, envs, episodes)

    return evaluate


def _play_all(act, agent, envs, episodes):
    spec = environments.spec(envs[0])
    limit, split = spec.max_episode_steps or MAX_STEPS, splitter(spec.actions)
    state = cycle.initial_actor_state(agent.evaluator, len(envs))
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    # Environment i plays episodes i, i + count, ...: which is fixed before any is played.
    playing = np.arange(len(envs))
    timesteps = [env.reset() for env in envs]
    while (playing < episodes).any():
        step = np.where(playing < episodes, lengths[np.minimum(playing, episodes - 1)], 0)
        action, state = act(playing, step.astype(np.int32), _stack(timesteps), state)
        actions = split(jax.tree.map(np.asarray, action))
        for i, env in enumerate(envs):
            episode = playing[i]
            if episode >= episodes:
                continue
            if timesteps[i].last() or (lengths[episode] >= limit):
                playing[i] += len(envs)
                timesteps[i] = env.reset()
                continue
            timesteps[i] = env.step(actions[i])
            returns[episode] += timesteps[i].reward
            lengths[episode] += 1
    return returns, lengths


def film(
    agent: Agent, params: Params, environment: Any, seed: int
) -> tuple[Iterator[np.ndarray], float]:
    """Returns the frames of an episode of the evaluator, uint8 [H, W, 3], and frames per second."""
    env = resolve.host(environment, _seed(seed), 0, render=True)
    act = partial(jax.jit(partial(_act, agent.evaluator)), params, _keys(seed)[0])

    def frames():
        with contextlib.closing(env):
            spec = environments.spec(env)
            split = splitter(spec.actions)
            timestep, state = env.reset(), cycle.initial_actor_state(agent.evaluator, 1)
            yield env.render()
            for step in range(spec.max_episode_steps or MAX_STEPS):
                numbers = np.zeros(1, np.int32), np.full(1, step, np.int32)
                action, state = act(*numbers, _stack([timestep]), state)
                timestep = env.step(split(jax.tree.map(np.asarray, action))[0])
                yield env.render()
                if timestep.last():
                    return

    return frames(), getattr(env, "frames_per_second", 30.0)


def _stack(timesteps):
    rows = [
        timestep._replace(
            reward=timestep.reward or 0.0,
            discount=1.0 if timestep.discount is None else timestep.discount,
        )
        for timestep in timesteps
    ]
    return jax.tree.map(lambda *x: np.stack(x), *rows)
