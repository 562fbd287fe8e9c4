"""Training in a Python loop over dm_env environments: any environment there is."""

import contextlib
from functools import partial

import dm_env
import jax
import numpy as np

from rlws import environments, streams
from rlws.environments import resolve
from rlws.adders.episodes import MAX_BLOCK
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.block import Block
from rlws.trainers.trainer import Budget, Progress, Trainer

LAST = dm_env.StepType.LAST


class HostTrainer(Trainer):
    """Steps environments one after the other, with one compiled dispatch for all their actions.

    Set `jit` to False to step through the actor and the learner with pdb.
    """

    jit: bool = True

    def train(self, config, environment, *, seed=0, steps=None, episodes=None, report_period=1000):
        budget = Budget(steps, episodes).check()
        with contextlib.ExitStack() as stack:
            envs = []
            for index in range(self.num_envs):
                envs.append(resolve.host(environment, seed, index))
                stack.callback(envs[-1].close)
            spec = environments.spec(envs[0])
            agent = config.make(spec)
            if not self.jit:
                stack.enter_context(jax.disable_jit())
            yield from _run(agent, spec, envs, seed, budget, report_period)


def _run(agent, spec, envs, seed, budget, report_period):
    act, consume = _compile(agent, seed)
    state = jax.jit(partial(cycle.init, agent, spec, seed, len(envs)))()
    actor_state = cycle.initial_actor_state(agent.actor, len(envs))
    example = jax.device_get(cycle.example_row(agent, spec, state.learner.params))
    until_last = agent.adder.block_length is None
    new_block = partial(Block, example, agent.adder.block_length or MAX_BLOCK, len(envs))
    block, steps, episodes, next_report, step = new_block(), 0, 0, 0, np.uint32(0)
    timesteps = [env.reset() for env in envs]
    running, ended = [[0.0, 0] for _ in envs], []  # [return, length] of episodes

    while True:
        if steps >= next_report or budget.spent(steps, episodes):
            state, metrics = cycle.read_totals(state)
            returns, lengths = np.array(ended, np.float64).reshape(-1, 2).T
            updates, params = int(state.learner.updates), state.learner.params
            yield Progress(steps, episodes, updates, returns, lengths, metrics, agent, params)
            if budget.spent(steps, episodes):
                return
            ended, next_report = [], (steps // report_period + 1) * report_period

        seen = block.begin(timesteps)
        action, actor_state, extras, step = act(state.learner.params, step, seen, actor_state)
        actions = block.end(action, extras)
        lasts = [timestep.step_type == LAST for timestep in timesteps]
        if block.length == block.capacity or (until_last and True in lasts):
            block.check_finite(steps)
            state = consume(state, block.rows, block.length)
            block = new_block()

        for i, env in enumerate(envs):
            if lasts[i]:
                timesteps[i] = env.reset()
                continue
            timesteps[i] = timestep = env.step(actions[i])
            steps += 1
            running[i][0] += timestep.reward
            running[i][1] += 1
            if timestep.step_type == LAST:
                ended.append(running[i])
                running[i] = [0.0, 0]
                episodes += 1


def _compile(agent, seed):
    act_key, learn_key = streams.key(seed, Stream.ACT), streams.key(seed, Stream.LEARN)

    def act(params, step, timestep, state):
        return *cycle.act(agent.actor, params, act_key, step, timestep, state), step + 1

    def consume(state, rows, length):
        return cycle.consume(agent, state, rows, length, learn_key)

    return jax.jit(act), jax.jit(consume, donate_argnums=0)
