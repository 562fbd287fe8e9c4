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
from rlws.agent import Agent
from rlws.environments import JaxEnvironment, resolve
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.types import Params

MAX_STEPS = 10_000  # of an episode whose environment has no time limit
HOST_ENVS = 10

Evaluate = Callable[[Params], tuple[np.ndarray, np.ndarray]]


def evaluator(agent: Agent, environment: Any, episodes: int, seed: int) -> Evaluate:
    """Returns a function from parameters to the returns and lengths of `episodes` episodes.

    Each call plays the same episodes (same initial states, same random numbers), so that two calls
    differ by their policies only. Every episode is played to its end, or to `MAX_STEPS` where the
    environment has no time limit.

    Args:
      agent: its `evaluator` acts.
      environment: as for `Trainer.train`; a JaxEnvironment is run in one compiled program.
      episodes: how many to play, all begun at once on the device, `HOST_ENVS` at a time on a host.
      seed: the seed of the run; evaluation has random streams of its own.
    """
    seed = streams.host_seed(seed, Stream.EVALUATION)
    if resolve.is_jax(environment):
        play = jax.jit(_device_play(agent, resolve.device(environment), episodes, seed))
        return lambda params: jax.device_get(play(params))
    return _host_play(agent, environment, episodes, seed)


def _device_play(agent: Agent, environment: JaxEnvironment, episodes: int, seed: int):
    limit = environment.spec().max_episode_steps or MAX_STEPS
    act_key, reset_key = streams.key(seed, Stream.ACT), streams.key(seed, Stream.ENVIRONMENT)
    keys = jax.vmap(lambda index: environments.episode_key(reset_key, index, 0))

    def play(params):
        def playing(carry):
            _, timestep, _, step, _, _ = carry
            return (step < limit) & ~timestep.last().all()

        def step(carry):
            state, timestep, actor_state, step, returns, lengths = carry
            action, actor_state, _ = cycle.act(
                agent.evaluator, params, act_key, step, timestep, actor_state
            )
            live = ~timestep.last()
            state, following = jax.vmap(environment.step)(state, action)
            # Once LAST, always LAST: what an ended environment does no longer counts.
            step_type = jnp.where(live, following.step_type, dm_env.StepType.LAST)
            returns = returns + jnp.where(live, following.reward, 0.0)
            timestep = following._replace(step_type=step_type)
            return state, timestep, actor_state, step + 1, returns, lengths + live

        state, timestep = jax.vmap(environment.reset)(keys(jnp.arange(episodes)))
        actor_state = cycle.initial_actor_state(agent.evaluator, episodes)
        zeros = jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32)
        carry = (state, timestep, actor_state, jnp.int32(0), *zeros)
        return jax.lax.while_loop(playing, step, carry)[-2:]

    return play


def _host_play(agent: Agent, environment: Any, episodes: int, seed: int) -> Evaluate:
    act = jax.jit(partial(_act, agent.evaluator, streams.key(seed, Stream.ACT)))

    def evaluate(params):
        with contextlib.ExitStack() as stack:
            count = min(HOST_ENVS, episodes)
            envs = [resolve.host(environment, seed, index) for index in range(count)]
            for env in envs:
                stack.callback(env.close)
            return _play_all(act, agent, envs, params, episodes)

    return evaluate


def _play_all(act, agent, envs, params, episodes):
    limit = environments.spec(envs[0]).max_episode_steps or MAX_STEPS
    state = cycle.initial_actor_state(agent.evaluator, len(envs))
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    # Environment i plays episodes i, i + count, ...: which is fixed before any is played.
    playing, step = list(range(len(envs))), 0
    timesteps = [env.reset() for env in envs]
    while any(episode < episodes for episode in playing):
        action, state = act(params, np.uint32(step), _stack(timesteps), state)
        action, step = jax.tree.map(np.asarray, action), step + 1
        for i, env in enumerate(envs):
            episode = playing[i]
            if episode >= episodes:
                continue
            if timesteps[i].last() or (lengths[episode] >= limit):
                playing[i] += len(envs)
                timesteps[i] = env.reset()
                continue
            timesteps[i] = env.step(jax.tree.map(lambda x: x[i], action))  # noqa: B023
            returns[episode] += timesteps[i].reward
            lengths[episode] += 1
    return returns, lengths


def film(
    agent: Agent, params: Params, environment: Any, seed: int
) -> tuple[Iterator[np.ndarray], float]:
    """Returns the frames of an episode of the evaluator, uint8 [H, W, 3], and frames per second."""
    seed = streams.host_seed(seed, Stream.EVALUATION)
    env = resolve.host(environment, seed, 0, render=True)
    act = jax.jit(partial(_act, agent.evaluator, streams.key(seed, Stream.ACT)))

    def frames():
        with contextlib.closing(env):
            limit = environments.spec(env).max_episode_steps or MAX_STEPS
            timestep, state = env.reset(), cycle.initial_actor_state(agent.evaluator, 1)
            yield env.render()
            for step in range(limit):
                action, state = act(params, np.uint32(step), _stack([timestep]), state)
                timestep = env.step(jax.tree.map(lambda x: np.asarray(x)[0], action))
                yield env.render()
                if timestep.last():
                    return

    return frames(), getattr(env, "frames_per_second", 30.0)


def _act(actor, act_key, params, step, timestep, state):
    return cycle.act(actor, params, act_key, step, timestep, state)[:2]


def _stack(timesteps):
    rows = [
        timestep._replace(
            reward=timestep.reward or 0.0,
            discount=1.0 if timestep.discount is None else timestep.discount,
        )
        for timestep in timesteps
    ]
    return jax.tree.map(lambda *x: np.stack(x), *rows)
