"""Training in a Python loop over dm_env environments: any environment there is."""

import contextlib
from functools import partial

import dm_env
import jax
import numpy as np

from rlws import environments, streams
from rlws.adders.episodes import MAX_BLOCK
from rlws.environments import resolve
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.acting import compile_acting
from rlws.trainers.block import Block
from rlws.trainers.trainer import Progress, Trainer, limits, next_multiple

LAST = dm_env.StepType.LAST


class HostTrainer(Trainer):
    """Steps environments one after the other, with one compiled dispatch for all their actions.

    Set `jit` to False to step through the actor and the learner with pdb.
    """

    jit: bool = True  # compile; without, pdb can step through actor and learner

    def train(self, config, environment, *, seed=0, steps=None, episodes=None, report_period=1000):
        budget = limits(steps, episodes)
        with contextlib.ExitStack() as stack:
            envs = []
            for index in range(self.num_envs):
                envs.append(resolve.host(environment, seed, index))
                stack.callback(envs[-1].close)
            spec = environments.spec(envs[0])
            agent = config.make(spec)
            run = _run(agent, spec, envs, seed, budget, report_period)
            while True:
                with jax.disable_jit(not self.jit):  # here only, not where reports are looked at
                    report = next(run, None)
                if report is None:
                    return
                yield report


def _run(agent, spec, envs, seed, budget, report_period):
    add, learn = _compile(agent, seed)
    last_step, last_episode = budget
    episode_limit = agent.adder.episode_limit
    state = jax.jit(partial(cycle.init, agent, spec, seed, len(envs)))()
    actor_state = cycle.initial_actor_state(agent.actor, len(envs))
    example = jax.device_get(cycle.example_row(agent, spec, state.learner.params))
    act_key = streams.key(seed, Stream.ACT)
    acting = compile_acting(agent, state.learner.params, example, len(envs), act_key)
    act, params = acting.program, acting.read(state.learner.params)
    block_length = agent.adder.block_length or MAX_BLOCK
    new_block = partial(Block, example, block_length, len(envs), acting.timestep)
    block, timesteps = new_block(), [env.reset() for env in envs]
    steps = episodes = next_report = ends = 0
    step, look = np.uint32(0), False  # rows so far; whether there may be a batch
    restart, episode_length = [False] * len(envs), [0] * len(envs)
    episode_return = [0.0] * len(envs)
    ended = list[tuple[float, int]]()  # returns and lengths of the episodes since the last report

    while True:
        if steps >= next_report or episodes >= last_episode:
            block.check_finite(steps)
            state, metrics = cycle.read_totals(state)
            returns, lengths = np.array(ended, np.float64).reshape(-1, 2).T
            updates, learned = int(state.learner.updates), state.learner.params
            yield Progress(steps, episodes, updates, returns, lengths, metrics, agent, learned)
            if steps >= last_step or episodes >= last_episode:
                return
            ended, next_report = [], min(next_multiple(steps, report_period), last_step)

        seen = block.begin(timesteps)
        action, actor_state, extras, step = act(params, step, seen, actor_state)
        actions = block.end(action, extras)
        if block.length == block.capacity or look:
            block.check_finite(steps)
            adder, ready = add(state.adder, block.rows, block.length)
            state, block, look = state._replace(adder=adder), new_block(), False
            if ready:
                state, ends = learn(state), 0
                params = acting.read(state.learner.params)

        for i, env in enumerate(envs):
            if restart[i]:
                timesteps[i], restart[i] = env.reset(), False
                continue
            timesteps[i] = timestep = env.step(actions[i])
            steps += 1
            episode_return[i] += timestep.reward
            episode_length[i] += 1
            if timestep.step_type == LAST:
                ended.append((episode_return[i], episode_length[i]))
                restart[i], episode_return[i], episode_length[i] = True, 0.0, 0
                episodes += 1
            elif episode_length[i] != episode_limit:
                continue
            ends += 1
            look = ends >= agent.adder.min_ends


def _compile(agent, seed):
    learn_key = streams.key(seed, Stream.LEARN)

    def add(adder, rows, length):
        adder = agent.adder.add(adder, rows, length)
        return adder, agent.adder.ready(adder)

    def learn(state):
        return cycle.learn(agent, state, learn_key)

    return jax.jit(add, donate_argnums=0), jax.jit(learn, donate_argnums=0)
