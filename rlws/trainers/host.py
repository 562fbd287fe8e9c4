"""Training in a Python loop over dm_env environments: any environment there is."""

import contextlib
from functools import partial

import dm_env
import jax
import numpy as np

from rlws import environments, streams
from rlws.environments import resolve
from rlws.adders.episodes import MAX_BLOCK
from rlws.settings import SettingError
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.trainer import Budget, Progress, Trainer

LAST = dm_env.StepType.LAST


class HostTrainer(Trainer):
    """Steps environments one after the other, with one compiled dispatch for all their actions.

    Set `jit` to False to step through the actor and the learner with pdb.
    """

    jit: bool = True

    def train(self, config, environment, *, seed=0, steps=None, episodes=None, report_period=1000):
        budget = Budget(steps, episodes).check()
        # Dispatching from the calling thread halves the time of a small policy call on a CPU.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
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
    block_length = agent.adder.block_length or MAX_BLOCK
    block, t, step, steps, episodes, next_report = _block(example, block_length, envs), 0, 0, 0, 0, 0
    timesteps = [env.reset() for env in envs]
    running, ended = [[0.0, 0] for _ in envs], []  # return and length of each episode

    while True:
        if steps >= next_report or budget.spent(steps, episodes):
            state, metrics = cycle.read_totals(state)
            returns, lengths = np.array(ended, np.float64).reshape(-1, 2).T
            updates, params = int(state.learner.updates), state.learner.params
            yield Progress(steps, episodes, updates, returns, lengths, metrics, agent, params)
            if budget.spent(steps, episodes):
                return
            ended, next_report = [], (steps // report_period + 1) * report_period

        _write(block.timestep, t, timesteps)
        seen = jax.tree.map(lambda x: x[t], block.timestep)
        action, actor_state, extras, step = act(state.learner.params, step, seen, actor_state)
        action = jax.tree.map(np.asarray, action)
        _record(block, t, action, extras)
        t += 1
        if t == block_length or (until_last and any(ts.step_type == LAST for ts in timesteps)):
            _check_finite(block, t, steps)
            state = consume(state, block, t)
            block, t = _block(example, block_length, envs), 0

        for i, env in enumerate(envs):
            if timesteps[i].step_type == LAST:
                timesteps[i] = env.reset()
                continue
            timesteps[i] = timestep = env.step(jax.tree.map(lambda x: x[i], action))
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


def _block(example, length, envs):
    # A new one each time: JAX may still read, or on a CPU have borrowed, the memory of the last.
    return jax.tree.map(lambda x: np.zeros((length, len(envs), *x.shape), x.dtype), example)


def _write(block, t, timesteps):
    for i, timestep in enumerate(timesteps):
        block.step_type[t, i] = timestep.step_type
        block.reward[t, i] = timestep.reward or 0.0
        block.discount[t, i] = 1.0 if timestep.discount is None else timestep.discount
        for buffer, x in zip(
            jax.tree.leaves(block.observation), jax.tree.leaves(timestep.observation), strict=True
        ):
            buffer[t, i] = x


def _record(block, t, action, extras):
    for buffer, x in zip(
        jax.tree.leaves((block.action, block.extras)), jax.tree.leaves((action, extras)), strict=True
    ):
        buffer[t] = x


def _check_finite(block, length, steps):
    for path, x in jax.tree.leaves_with_path(block.timestep):
        if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x[:length]).all():
            t, i = np.argwhere(~np.isfinite(x[:length]).reshape(length, x.shape[1], -1).all(-1))[0]
            raise SettingError(
                f"environment {i}: {jax.tree_util.keystr(path)} must be finite, got {x[t, i]} "
                f"about step {steps}; mend the environment or wrap it"
            )


