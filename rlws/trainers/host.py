"""Training in a Python loop over host environments: any environment there is."""

import contextlib
from functools import partial
from typing import Literal

import jax
import numpy as np

from rlws.settings import Positive
from rlws.trainers.deadline import TIMEOUT, deadline
from rlws.trainers.players import Players, make_players
from rlws.trainers.row_by_row import RowByRow
from rlws.trainers.trainer import Progress, Snapshot, Trainer, limits, never, next_multiple
from rlws.trainers.turns import InBlocks, Turns


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
    environment_timeout: Positive = TIMEOUT  # seconds an environment may take for a step

    def exact(self, environment):
        # An episode can be played again where its number decides what is random in it. Whether
        # that is so, `repeats` tries.
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
            agent = config.make(play.spec)
            control = report_period, resume, stop, max_updates
            run = _run(agent, play, seed, budget, self.overlap, stack, *control)
            while True:
                with jax.disable_jit(not self.jit):  # here only, not where reports are looked at
                    report = next(run, None)
                if report is None:
                    return
                yield report

    def _environments(self, environment, seed, stack, begin) -> Players:
        play = make_players(environment, self.num_envs, self.vectorization, seed, begin)
        stack.callback(play.close)
        return play


def _run(agent, play, seed, budget, overlap, stack, report_period, resume, stop, max_updates):
    last_step, last_episode = budget
    turns: Turns
    if agent.adder.schedule(play.num_envs).block_length == 1 and not overlap:
        turns = RowByRow(agent, play, seed, resume, max_updates)
    else:
        turns = InBlocks(agent, play, seed, overlap, resume, max_updates)
    stack.callback(turns.close)
    next_report = 0 if resume is None else resume.facts["next_report"]

    def spent():
        return play.steps >= last_step or play.episodes >= last_episode

    def due():
        return spent() or play.steps >= next_report or stop()

    def snapshot(totals):
        saved, facts = turns.save(ended)
        saved["state"] = saved["state"]._replace(totals=totals)
        facts |= {"next_report": next_report, "updates": int(before.learner.updates)}
        return Snapshot(saved, facts)

    look = due()
    while True:
        if look:
            turns.check()
            stopped = not (spent() or turns.halted or play.steps >= next_report)
            before = turns.state()
            ended = list(play.ended)
            state, metrics = (before, {}) if stopped else turns.read()
            save = partial(snapshot, before.totals)
            yield _progress(agent, play, state, metrics, spent(), save, turns.halted, stopped)
            if spent() or turns.halted or stopped:
                return
            next_report = next_multiple(play.steps, report_period)
        look = turns.advance(due)


def _progress(agent, play, state, metrics, spent, save, halted, stopped):
    returns, lengths = np.array(play.ended, np.float64).reshape(-1, 2).T
    warnings = tuple(play.warnings)
    if not stopped:
        play.ended.clear()
        play.warnings.clear()
    learner, counts = state.learner, (play.steps, play.episodes, int(state.learner.updates))
    params, how = learner.params, (spent, save, halted, stopped)
    return Progress(*counts, returns, lengths, metrics, agent, params, *how, warnings)
