"""Training in a Python loop over host environments: any environment there is."""

import contextlib
from typing import Any, Literal

import jax

from rlws.agent import Agent
from rlws.environments.repeats import numbered
from rlws.settings import Positive
from rlws.trainers.deadline import TIMEOUT, deadline
from rlws.trainers.host_environments import HostEnvironments, make_environments
from rlws.trainers.learning import Learning
from rlws.trainers.overlap import Overlapping
from rlws.trainers.reports import Reports
from rlws.trainers.rollout import Ends, Rollout
from rlws.trainers.row_by_row import RowByRow
from rlws.trainers.trainer import Control, Trainer, limits


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
        return self.vectorization == "serial" and numbered(environment)

    def train(self, config, environment, *, seed=0, **control):
        how = Control(**control)
        limits(how.steps, how.episodes)
        with contextlib.ExitStack() as stack:
            begin = 0 if how.resume is None else how.resume.facts["rows"]
            envs: HostEnvironments | None = None
            making = "an environment, when it is made or first reset,", 0
            asked = lambda: making if envs is None else envs.asked()
            stack.enter_context(deadline(self.environment_timeout, asked))
            envs = make_environments(environment, self.num_envs, self.vectorization, seed, begin)
            stack.callback(envs.close)
            agent = config.make(envs.spec)
            run = _run(agent, envs, seed, how, self.overlap, stack)
            while True:
                with jax.disable_jit(not self.jit):  # here only, not where reports are looked at
                    report = next(run, None)
                if report is None:
                    return
                if report.spent:  # evaluation may need the place of the environments
                    stack.close()
                yield report


def _one_dispatch(agent: Agent, num_envs: int) -> bool:
    """Returns whether adding, learning and acting shall be one program."""
    return agent.adder.schedule(num_envs).block_length == 1


def _run(agent, envs, seed, control, overlap, stack):
    """Yields the progress of a run. This is the loop: play a block, learn from it, act anew."""
    rollout: Any
    learning: Any
    if _one_dispatch(agent, envs.num_envs) and not overlap:
        rollout = learning = RowByRow(agent, envs, seed, control)
    else:
        kind = Overlapping if overlap else Learning
        learning = kind(agent, envs.spec, seed, envs.num_envs, control)
        rollout = Rollout(agent, envs, seed, Ends.of(agent, envs.num_envs))
        if control.resume is not None:
            rollout.restore(*control.resume)
    stack.callback(learning.close)
    reports = Reports(agent, envs, learning, control, rollout.save)
    params, look = rollout.read_params(learning.params), reports.due()
    while True:
        if look:
            rollout.check()
            yield (report := reports.make())
            if report.spent or report.halted or report.stopped:
                return
            reports.next()
        look = True
        if rollout.advance(params, reports.due):  # else it is time to look, within a block
            learned = learning.take(rollout.block.rows, rollout.block.length, rollout.following())
            if learned:
                params = rollout.read_params(learning.params)
            rollout.renew(learned)
            look = learning.halted or reports.due()
