"""Training in a Python loop over host environments: any environment there is."""

import contextlib
from functools import partial
from typing import Literal

import jax
import numpy as np

from rlws import streams
from rlws.adders.episodes import MAX_BLOCK
from rlws.environments import resolve
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.acting import compile_acting
from rlws.trainers.block import Block
from rlws.trainers.learning import Learning
from rlws.trainers.players import Players, Serial, Vector
from rlws.trainers.trainer import Progress, Trainer, limits, next_multiple


class HostTrainer(Trainer):
    """Steps environments from Python, with one compiled dispatch for all their actions.

    Set `jit` to False to step through the actor and the learner with pdb.
    """

    jit: bool = True  # compile; without, pdb can step through actor and learner
    # One after the other from Python; by gymnasium, in this or in other processes; as the one
    # vectorised environment gymnasium has of it; by envpool.
    vectorization: Literal["serial", "sync", "async", "native", "envpool"] = "serial"
    # Learn while the next block is played, by the parameters from before the last one.
    overlap: bool = False

    def train(self, config, environment, *, seed=0, steps=None, episodes=None, report_period=1000):
        budget = limits(steps, episodes)
        with contextlib.ExitStack() as stack:
            play = self._environments(environment, seed, stack)
            spec = play.spec
            agent = config.make(spec)
            run = _run(agent, play, seed, budget, report_period, self.overlap, stack)
            while True:
                with jax.disable_jit(not self.jit):  # here only, not where reports are looked at
                    report = next(run, None)
                if report is None:
                    return
                yield report

    def _environments(self, environment, seed, stack) -> Players:
        if self.vectorization == "serial":
            envs = []
            for index in range(self.num_envs):
                envs.append(resolve.host(environment, seed, index))
                stack.callback(envs[-1].close)
            return Serial(envs)
        from rlws.environments.vector import make_vector  # slow to import

        vector = make_vector(environment, self.num_envs, seed, self.vectorization)
        stack.callback(vector.close)
        return Vector(vector)


def _run(agent, play, seed, budget, report_period, overlap, stack):
    last_step, last_episode = budget
    play.episode_limit, min_ends = agent.adder.episode_limit, agent.adder.min_ends
    learning = stack.enter_context(Learning(agent, play.spec, seed, play.num_envs, overlap))
    example = jax.device_get(cycle.example_row(agent, play.spec, learning.params))
    actor_state = cycle.initial_actor_state(agent.actor, play.num_envs)
    act_key = streams.key(seed, Stream.ACT)
    acting = compile_acting(agent, learning.params, example, play.num_envs, act_key)
    act, params = acting.program, acting.read(learning.params)
    block_length = agent.adder.schedule(play.num_envs).block_length or MAX_BLOCK
    new_block = partial(Block, example, block_length, play.num_envs, acting.timestep)
    block, ends, next_report, look = new_block(), 0, 0, False
    step = np.uint32(0)  # rows so far

    while True:
        if play.steps >= next_report or play.episodes >= last_episode:
            block.check_finite(play.steps)
            spent = play.steps >= last_step or play.episodes >= last_episode
            yield _progress(agent, play, spent, *learning.read())
            if spent:
                return
            next_report = min(next_multiple(play.steps, report_period), last_step)

        seen = block.begin(play.timesteps)
        action, actor_state, extras, step = act(params, step, seen, actor_state)
        ended = play.step(block.end(action, extras))
        ends += ended
        if look or block.length == block.capacity:
            block.check_finite(play.steps)
            if learning.take(block, block.following(play.timesteps)):
                ends, params = ended, acting.read(learning.params)
            block = new_block()
        # An episode is whole once its LAST timestep has a row, which is the next.
        look = ended > 0 and ends >= min_ends


def _progress(agent, play, spent, state, metrics):
    returns, lengths = np.array(play.ended, np.float64).reshape(-1, 2).T
    play.ended.clear()
    learner, counts = state.learner, (play.steps, play.episodes, int(state.learner.updates))
    return Progress(*counts, returns, lengths, metrics, agent, learner.params, spent)
