"""Training in a Python loop over host environments: any environment there is."""

import contextlib
from functools import partial
from typing import Literal

import jax
import numpy as np

from rlws import checkpoint, streams
from rlws.adders.episodes import MAX_BLOCK
from rlws.environments import resolve
from rlws.settings import Positive
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.acting import compile_acting
from rlws.trainers.block import Block
from rlws.trainers.deadline import deadline
from rlws.trainers.learning import Learning
from rlws.trainers.players import Players, Serial, Vector
from rlws.trainers.trainer import Progress, Snapshot, Trainer, limits, never, next_multiple


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
    environment_timeout: Positive = 600.0  # seconds an environment may take for a step

    def exact(self, environment):
        # An episode can be played again where its number decides what is random in it.
        return self.vectorization == "serial" and hasattr(environment, "episode")

    def train(
        self,
        config,
        environment,
        *,
        seed=0,
        steps=None,
        episodes=None,
        report_period=1000,
        resume=None,
        stop=never,
        max_updates=None,
    ):
        budget = limits(steps, episodes)
        with contextlib.ExitStack() as stack:
            begin = 0 if resume is None else resume.facts["rows"]
            play: Players | None = None
            making = "an environment, when it is made or first reset,", 0
            asked = lambda: making if play is None else play.asked()
            stack.enter_context(deadline(self.environment_timeout, asked))
            play = self._environments(environment, seed, stack, begin)
            spec = play.spec
            agent = config.make(spec)
            control = report_period, resume, stop, max_updates
            run = _run(agent, play, seed, budget, self.overlap, stack, *control)
            while True:
                with jax.disable_jit(not self.jit):  # here only, not where reports are looked at
                    report = next(run, None)
                if report is None:
                    return
                yield report

    def _environments(self, environment, seed, stack, begin) -> Players:
        if self.vectorization == "serial":
            envs = []
            for index in range(self.num_envs):
                envs.append(resolve.host(environment, seed, index))
                stack.callback(envs[-1].close)
            return Serial(envs)
        from rlws.environments.vector import make_vector  # slow to import

        vector = make_vector(environment, self.num_envs, seed, self.vectorization, begin)
        stack.callback(vector.close)
        return Vector(vector)


def _run(agent, play, seed, budget, overlap, stack, report_period, resume, stop, max_updates):
    last_step, last_episode = budget
    arrays, facts = (None, {}) if resume is None else resume
    play.episode_limit, min_ends = agent.adder.episode_limit, agent.adder.min_ends
    learning = Learning(agent, play.spec, seed, play.num_envs, overlap, arrays, max_updates)
    stack.enter_context(learning)
    example = jax.device_get(cycle.example_row(agent, play.spec, learning.params))
    actor_state = cycle.initial_actor_state(agent.actor, play.num_envs)
    act_key = streams.key(seed, Stream.ACT)
    acting = compile_acting(agent, learning.params, example, play.num_envs, act_key)
    act, params = acting.program, acting.read(learning.params)
    block_length = agent.adder.schedule(play.num_envs).block_length or MAX_BLOCK
    new_block = partial(Block, example, block_length, play.num_envs, acting.timestep, play.spec)
    block, ends, next_report, look = new_block(), 0, 0, False
    step = np.uint32(0)  # rows so far
    if resume is not None:
        play.restore(arrays, facts)
        actor_state = checkpoint.restore(actor_state, arrays, "actor")
        held = lambda x: jax.ShapeDtypeStruct((facts["held"], *x.shape[1:]), x.dtype)
        block.restore(checkpoint.restore(jax.tree.map(held, block.rows), arrays, "rows"))
        step, ends, look = np.uint32(facts["rows"]), facts["ends"], facts["look"]
        next_report = facts["next_report"]

    def snapshot(totals):
        saved = learning.save()
        saved["state"] = saved["state"]._replace(totals=totals)
        rows = jax.tree.map(lambda x: x[: block.length], block.rows)
        own, known = play.save(ended)
        known |= {"rows": int(step), "held": block.length, "next_report": next_report}
        known |= {"ends": ends, "look": bool(look), "updates": int(before.learner.updates)}
        return Snapshot({**saved, "actor": actor_state, "rows": rows, "environments": own}, known)

    while True:
        spent = play.steps >= last_step or play.episodes >= last_episode
        if spent or learning.halted or play.steps >= next_report or stop():
            block.begin(play.timesteps)
            block.check(play.steps)
            stopped = not (spent or learning.halted or play.steps >= next_report)
            before = learning.save()["state"]
            ended = list(play.ended)
            state, metrics = (before, {}) if stopped else learning.read()
            save = partial(snapshot, before.totals)
            yield _progress(agent, play, state, metrics, spent, save, learning.halted, stopped)
            if spent or learning.halted or stopped:
                return
            next_report = next_multiple(play.steps, report_period)

        seen = block.begin(play.timesteps)
        action, actor_state, extras, step = act(params, step, seen, actor_state)
        ended_now = play.step(block.end(action, extras))
        ends += ended_now
        if look or block.length == block.capacity:
            following = block.following(play.timesteps)
            block.check(play.steps)
            if learning.take(block, following):
                ends, params = ended_now, acting.read(learning.params)
            block = new_block()
        # An episode is whole once its LAST timestep has a row, which is the next.
        look = ended_now > 0 and ends >= min_ends


def _progress(agent, play, state, metrics, spent, save, halted, stopped):
    returns, lengths = np.array(play.ended, np.float64).reshape(-1, 2).T
    if not stopped:
        play.ended.clear()
    learner, counts = state.learner, (play.steps, play.episodes, int(state.learner.updates))
    params = learner.params
    return Progress(*counts, returns, lengths, metrics, agent, params, spent, save, halted, stopped)
