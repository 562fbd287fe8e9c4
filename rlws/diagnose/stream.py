"""A stream of experience whose every step can be told from its observations."""

from functools import partial
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import StepType

from rlws.agent import Agent
from rlws.trainers import core
from rlws.types import EnvironmentSpec, Row

NUM_ENVS = 2
ROWS = 192


class Stream(NamedTuple):
    """A stream whose every step can be told from its observations, and what an agent made of it."""

    rows: Row  # leaves [ROWS, B, ...]
    final: dm_env.TimeStep  # after the last row, [B, ...]
    episode: np.ndarray  # [ROWS + 1, B]
    t: np.ndarray  # [ROWS + 1, B], within the episode
    terminated: np.ndarray  # bool [ROWS + 1, B]


def make_stream(agent: Agent, spec: EnvironmentSpec, state: core.State) -> Stream:
    """Returns a stream of episodes of 1 to 7 steps, every other one truncated.

    Observations are (environment, episode, t, 1, noise ...) / 8, rewards random.
    """
    rng = np.random.default_rng(0)
    shape = ROWS + 1, NUM_ENVS
    episode, t, length = (np.zeros(shape, np.int32) for _ in range(3))
    for env in range(NUM_ENVS):
        row, number = 0, 0
        while row <= ROWS:
            steps = 1 + (number * 3 + env) % 7
            rows = slice(row, row + steps + 1)
            count = len(episode[rows, env])
            episode[rows, env], length[rows, env] = number, steps
            t[rows, env] = np.arange(count)
            row, number = row + steps + 1, number + 1
    step_type = np.where(t == 0, StepType.FIRST, np.where(t == length, StepType.LAST, StepType.MID))
    terminated = (step_type == StepType.LAST) & (episode % 2 == 0)
    size = spec.observations.shape[0]
    observation = rng.normal(size=(*shape, size))
    observation[..., 0], observation[..., 1], observation[..., 2] = np.arange(NUM_ENVS), episode, t
    observation[..., 3] = 1
    timestep = dm_env.TimeStep(
        step_type.astype(np.int32),
        np.where(t == 0, 0, rng.normal(size=shape)).astype(np.float32),
        np.float32(~terminated),
        (observation / 8).astype(np.float32),
    )

    def act(actor, inputs):
        step, now = inputs
        found = core.act(
            agent.actor, state.learner.params, jnp.zeros(2, jnp.uint32), step, now, actor
        )
        return found[1], Row(now, found[0], found[2])

    head, final = jax.tree.map(lambda x: x[:-1], timestep), jax.tree.map(lambda x: x[-1], timestep)
    start = core.initial_actor_state(agent.actor, NUM_ENVS)
    rows = jax.jit(partial(jax.lax.scan, act))(start, (jnp.arange(ROWS), head))[1]
    return Stream(jax.device_get(rows), final, episode, t, terminated)
