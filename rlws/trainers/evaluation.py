"""Evaluation: whole episodes of a fixed policy, in environments of their own."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from rlws.agent import Agent
from rlws.environments import WithInfo, resolve
from rlws.environments.repeatable import rate
from rlws.numerics import streams
from rlws.numerics.memo import Remembered
from rlws.numerics.streams import Stream
from rlws.settings import SettingError
from rlws.trainers import core, device_evaluation, initial
from rlws.trainers.deadline import TIMEOUT
from rlws.trainers.stage import Stage
from rlws.types import Key, Params

MAX_STEPS = 10_000  # of an episode whose environment has no time limit
HOST_ENVS = 10  # side by side, unless told otherwise

Evaluate = Callable[[Params, int], tuple[np.ndarray, ...]]


def evaluator(
    agent: Agent,
    environment: Any,
    episodes: int,
    timeout: float = TIMEOUT,
    num_envs: int = HOST_ENVS,
) -> Evaluate:
    """Returns a function of parameters and a seed: returns and lengths of `episodes` episodes.

    What is kept of their info (`environments.WithInfo`) comes after these, one array each.

    With the same seed it plays the same episodes (same initial states, same random numbers), so
    that two calls differ by their policies only. Evaluation has random streams of its own, and what
    an episode draws depends on its number alone. Every episode is played to its end, or, where the
    environment has no time limit, to `MAX_STEPS`: what has not ended by then has the return NaN.

    Args:
      agent: its `evaluator` acts.
      environment: as for `Trainer.train`; a JaxEnvironment is run in one compiled program.
      episodes: how many to play, all begun at once on the device.
      timeout: seconds an environment on a host may take for a step.
      num_envs: how many environments there are at a time, on a host.

    Raises, when it plays:
      EnvironmentFault: an environment does not do what it says, or does not answer.
      AgentFault: the evaluator chooses what no environment can take.
    """
    if resolve.is_jax(environment):
        one = resolve.device(environment)
        on_device = device_evaluation.compiled_play(agent.evaluator, one, episodes, MAX_STEPS)
        return lambda params, seed: on_device(params, *keys(seed)).read(one)
    act, count = _compiled_act(agent.evaluator), min(num_envs, episodes)
    info = len(environment.info) if isinstance(environment, WithInfo) else 0

    def evaluate(params, seed):
        with contextlib.ExitStack() as stack:
            stage = Stage("evaluation", environment, _seed(seed), count, timeout, stack)
            return _play_all(partial(act, params, keys(seed)[0]), agent, stage, episodes, info)

    return evaluate


def _seed(seed: int) -> int:
    return streams.host_seed(seed, Stream.EVALUATION)


def keys(seed: int) -> tuple[Key, Key]:
    """Returns the keys of actions and of resets of an evaluation."""
    own = _seed(seed)
    return streams.key(own, Stream.ACT), streams.key(own, Stream.ENVIRONMENT)


@Remembered
def _compiled_act(actor):
    """Acts in B episodes, by number, at one step or each at its own; actions and actor states."""

    def act(params, act_key, episode, step, timestep, state):
        return core.act(actor, params, act_key, step, timestep, state, episode)[:2]

    return jax.jit(act)


def unfinished(lengths: np.ndarray) -> str:
    """Returns what to say of episodes that were cut off after so many steps."""
    steps = int(lengths.max())
    remedy = "give the environment a time limit"
    if steps < MAX_STEPS:
        remedy = "the environment says that they end by then: mend its max_episode_steps"
    return f"had not ended after {steps:,} steps and have no return; {remedy}"


def _play_all(act, agent, stage, episodes, kept):
    limit, count = stage.spec.max_episode_steps or MAX_STEPS, len(stage.envs)
    state = initial.initial_actor_state(agent.evaluator, count)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    info = np.full((kept, episodes), np.nan)
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
                if not stage.timesteps[i].last():
                    returns[episode] = np.nan
                if kept:
                    info[:, episode] = stage.envs[i].episode_info()
                playing[i] += count
                stage.timesteps[i] = stage.reset(i, playing[i])
                continue
            stage.step(i, actions[i])
            returns[episode] += stage.timesteps[i].reward
            lengths[episode] += 1
    return returns, lengths, *info


def film(
    agent: Agent,
    params: Params,
    environment: Any,
    seed: int,
    timeout: float = TIMEOUT,
    look: Callable[..., np.ndarray] | None = None,
) -> tuple[Iterator[np.ndarray], float]:
    """Returns the frames of an episode of the evaluator, uint8 [H, W, 3], and frames per second.

    What `look` makes of picture, step, return so far, timestep and actor states (leaves [1, ...]),
    if it is given, is the frame.
    """
    act = partial(_compiled_act(agent.evaluator), params, keys(seed)[0])
    with contextlib.ExitStack() as opening:
        stage = Stage("film", environment, _seed(seed), 1, timeout, opening, render=True)
        stack = opening.pop_all()

    def frames():
        with stack:
            state, total = initial.initial_actor_state(agent.evaluator, 1), 0.0
            most = stage.spec.max_episode_steps or MAX_STEPS
            for step in range(most + 1):
                timestep = stage.timesteps[0]
                try:
                    picture = stage.render()
                except Exception as error:  # whatever a renderer lacks
                    raise SettingError(
                        f"{environment} gives no pictures: {error}; `rlws evaluate` needs none"
                    ) from error
                total += timestep.reward or 0.0
                yield look(picture, step, total, timestep, state) if look else picture
                if timestep.last() or step == most:
                    return
                numbers = np.zeros(1, np.int32), np.full(1, step, np.int32)
                (action,), state = stage.act(act, *numbers, state)
                stage.step(0, action)

    return frames(), rate(getattr(stage.envs[0], "frames_per_second", None))
