"""Evaluation: whole episodes of a fixed policy, in environments of their own."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws import environments
from rlws.actor import Actor
from rlws.agent import Agent
from rlws.environments import JaxEnvironment, resolve, rules
from rlws.environments.checks import (
    EnvironmentFault,
    check_actions,
    check_first,
    check_rules,
    check_timestep,
    fault,
    filled,
)
from rlws.numerics import streams
from rlws.numerics.streams import Stream
from rlws.trainers import core
from rlws.trainers.deadline import TIMEOUT, watched
from rlws.trainers.host_environments import splitter
from rlws.types import Key, Params

MAX_STEPS = 10_000  # of an episode whose environment has no time limit
HOST_ENVS = 10

Evaluate = Callable[[Params, int], tuple[np.ndarray, np.ndarray]]


def evaluator(agent: Agent, environment: Any, episodes: int, timeout: float = TIMEOUT) -> Evaluate:
    """Returns a function of parameters and a seed: returns and lengths of `episodes` episodes.

    With the same seed it plays the same episodes (same initial states, same random numbers), so
    that two calls differ by their policies only. Evaluation has random streams of its own, and what
    an episode draws depends on its number alone. Every episode is played to its end, or to
    `MAX_STEPS` where the environment has no time limit.

    Args:
      agent: its `evaluator` acts.
      environment: as for `Trainer.train`; a JaxEnvironment is run in one compiled program.
      episodes: how many to play, all begun at once on the device, `HOST_ENVS` at a time on a host.
      timeout: seconds an environment on a host may take for a step.

    Raises, when it plays:
      EnvironmentFault: an environment does not do what it says, or does not answer.
      AgentFault: the evaluator chooses what no environment can take.
    """
    if not resolve.is_jax(environment):
        return _host_play(agent, environment, episodes, timeout)
    environment = resolve.device(environment)
    play = jax.jit(_device_play(agent, environment, episodes))

    def evaluate(params, seed):
        returns, lengths, broken, timestep = play(params, *_keys(seed))
        for i in np.flatnonzero(broken)[:1]:
            rule = rules.nth(environment.spec().actions, timestep, int(broken[i]))
            who = f"{type(environment).__name__}, environment {i}, in the evaluation, episode 0"
            value = "NaN or infinity" if rule.must == "finite" else "another number"
            raise fault(rule, value, f"{who}, step {lengths[i]}")
        return jax.device_get((returns, lengths))

    return evaluate


def _seed(seed: int) -> int:
    return streams.host_seed(seed, Stream.EVALUATION)


def _keys(seed: int) -> tuple[Key, Key]:
    own = _seed(seed)
    return streams.key(own, Stream.ACT), streams.key(own, Stream.ENVIRONMENT)


def _act(actor: Actor, params, act_key, episode, step, timestep, state):
    """Acts in B episodes, by number, at one step or each at its own; actions and actor states."""
    return core.act(actor, params, act_key, step, timestep, state, episode)[:2]


def device_play(agent: Agent, environment: JaxEnvironment, episodes: int) -> Callable:
    """Returns a pure function: parameters, keys of actions and of resets to returns, lengths.

    A return is NaN where the policy or the environment does what it must not.
    """
    whole = _device_play(agent, environment, episodes)

    def play(params, act_key, reset_key):
        returns, lengths, broken, _ = whole(params, act_key, reset_key)
        return jnp.where(broken == 0, returns, jnp.nan), lengths

    return play


def _device_play(agent, environment, episodes):
    """Returns the function that returns, besides, which rule each episode broke (see `_broken`).

    And its last timesteps. An episode ends where it breaks one.
    """
    spec = environment.spec()
    limit, numbers = spec.max_episode_steps or MAX_STEPS, jnp.arange(episodes)

    def play(params, act_key, reset_key):
        def playing(carry):
            _, timestep, _, step, *_ = carry
            return (step < limit) & ~timestep.last().all()

        def step(carry):
            state, timestep, actor_state, step, returns, lengths, broken = carry
            arguments = params, act_key, numbers, step, timestep, actor_state
            chosen, actor_state = _act(agent.evaluator, *arguments)
            check_actions(spec.actions, chosen, axes=1)
            live = ~timestep.last()
            action = environments.clip_actions(spec.actions, chosen, jnp)
            state, following = jax.vmap(environment.step)(state, action)
            chose, acted, then = _one((chosen, timestep.step_type, following))
            wrong = _broken(rules.rules(spec.actions, chose, acted, then, jnp))
            broken = jnp.where(live, wrong, broken)
            # Once LAST, always LAST: what an ended environment does no longer counts.
            going = live & (broken == 0)
            step_type = jnp.where(going, following.step_type, dm_env.StepType.LAST)
            returns = returns + jnp.where(live, following.reward, 0.0)
            timestep = following._replace(step_type=step_type)
            return state, timestep, actor_state, step + 1, returns, lengths + live, broken

        keys = jax.vmap(lambda index: environments.episode_key(reset_key, index, 0))(numbers)
        state, timestep = jax.vmap(environment.reset)(keys)
        broken = _broken(rules.of_timesteps(_one(timestep), jnp))
        ended = jnp.where(broken == 0, timestep.step_type, dm_env.StepType.LAST)
        actor_state = core.initial_actor_state(agent.evaluator, episodes)
        zeros = jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32)
        begun = timestep._replace(step_type=ended)
        carry = (state, begun, actor_state, jnp.int32(0), *zeros, broken)
        _, timestep, _, _, returns, lengths, broken = jax.lax.while_loop(playing, step, carry)
        return returns, lengths, broken, timestep

    return play


def _one(tree):
    """Returns a step as a block of one."""
    return jax.tree.map(lambda x: x[None], tree)


def _broken(found):
    """Returns of each environment the first rule it breaks, -1 for the last of them; 0: none."""
    table = jnp.stack([rule.broken.reshape(rule.broken.shape[1], -1).any(-1) for rule in found])
    return jnp.where(table.any(0), jnp.argmax(table, 0) - len(found), 0)


def _host_play(agent: Agent, environment: Any, episodes: int, timeout: float) -> Evaluate:
    act = jax.jit(partial(_act, agent.evaluator))

    def evaluate(params, seed):
        count = min(HOST_ENVS, episodes)
        with contextlib.ExitStack() as stack:
            stage = _Stage("evaluation", environment, _seed(seed), count, timeout, stack)
            return _play_all(partial(act, params, _keys(seed)[0]), agent, stage, episodes)

    return evaluate


class _Stage:
    """Environments on a host in which an evaluator acts; what is wrong is named, as in training."""

    def __init__(self, what, environment, seed, count, timeout, stack, render=False):
        self._asked = stack.enter_context(watched(timeout))
        self._what, self._episode, self._step = what, list(range(count)), [0] * count
        self.envs, self.timesteps = [], []
        for i in range(count):
            self._asked.now = f"environment {i}, in the {what}, when it is made,", 0
            self.envs.append(resolve.host(environment, seed, i, render))
            stack.callback(self.envs[i].close)
        self.spec = environments.spec(self.envs[0])
        self._split = splitter(self.spec.actions, self._who)
        for i in range(count):
            self.timesteps.append(self.reset(i, i))
        self._asked.now = None

    def _who(self, i):
        place = f"episode {self._episode[i]}, step {self._step[i]}"
        return f"environment {i}, in the {self._what}, {place}"

    def reset(self, i, episode):
        """Returns the FIRST timestep of an episode, which has this number among all."""
        self._episode[i], self._step[i] = episode, 0
        self._asked.now = self._who(i), 0
        timestep = self.envs[i].reset()
        check_first(self.spec, timestep, self._who(i))
        return timestep

    def step(self, i, action):
        """Takes an action in environment i."""
        self._step[i] += 1
        self._asked.now = self._who(i), self._step[i]
        self.timesteps[i] = timestep = self.envs[i].step(action)
        check_timestep(self.spec, timestep, self._who(i))
        if timestep.first():
            raise EnvironmentFault(f"{self._who(i)}: step_type must be MID or LAST, got FIRST")

    def render(self):
        """Returns a picture of the first environment."""
        self._asked.now = self._who(0), self._step[0]
        return self.envs[0].render()

    def act(self, act, episodes, steps, state):
        """Returns an action for each environment, and the states of the actors."""
        self._asked.now = None
        batch = jax.tree.map(lambda *x: np.stack(x), *map(filled, self.timesteps))
        check_rules(rules.of_timesteps(_one(batch)), lambda t, i: self._who(i))
        action, state = act(episodes, steps, batch, state)
        action = jax.tree.map(np.asarray, action)
        check_actions(self.spec.actions, action, axes=1)
        check_rules(rules.of_actions(self.spec.actions, _one(action)), lambda t, i: self._who(i))
        return self._split(action), state


def _play_all(act, agent, stage, episodes):
    limit, count = stage.spec.max_episode_steps or MAX_STEPS, len(stage.envs)
    state = core.initial_actor_state(agent.evaluator, count)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    # Environment i plays episodes i, i + count, ...: which is fixed before any is played.
    playing = np.arange(count)
    while (playing < episodes).any():
        step = np.where(playing < episodes, lengths[np.minimum(playing, episodes - 1)], 0)
        actions, state = stage.act(act, playing, step.astype(np.int32), state)
        for i in range(count):
            episode = playing[i]
            if episode >= episodes:
                continue
            if stage.timesteps[i].last() or (lengths[episode] >= limit):
                playing[i] += count
                stage.timesteps[i] = stage.reset(i, playing[i])
                continue
            stage.step(i, actions[i])
            returns[episode] += stage.timesteps[i].reward
            lengths[episode] += 1
    return returns, lengths


def film(
    agent: Agent, params: Params, environment: Any, seed: int, timeout: float = TIMEOUT
) -> tuple[Iterator[np.ndarray], float]:
    """Returns the frames of an episode of the evaluator, uint8 [H, W, 3], and frames per second."""
    act = partial(jax.jit(partial(_act, agent.evaluator)), params, _keys(seed)[0])
    with contextlib.ExitStack() as opening:
        stage = _Stage("film", environment, _seed(seed), 1, timeout, opening, render=True)
        stack = opening.pop_all()

    def frames():
        with stack:
            state = core.initial_actor_state(agent.evaluator, 1)
            yield stage.render()
            for step in range(stage.spec.max_episode_steps or MAX_STEPS):
                numbers = np.zeros(1, np.int32), np.full(1, step, np.int32)
                (action,), state = stage.act(act, *numbers, state)
                stage.step(0, action)
                yield stage.render()
                if stage.timesteps[0].last():
                    return

    return frames(), getattr(stage.envs[0], "frames_per_second", 30.0)
