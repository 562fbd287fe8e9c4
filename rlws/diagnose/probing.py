"""Trains an agent on probes, one after the other: all seeds of each are one compiled program."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import AgentConfig
from rlws.diagnose import compilation, value_estimates
from rlws.diagnose.probes import Probe
from rlws.diagnose.tabular import Table, Tabular, make_table
from rlws.learner import MEMBERS
from rlws.trainers import device_evaluation, evaluation
from rlws.trainers.device_run import Budget
from rlws.trainers.program import Program

SEEDS = 5
NUM_ENVS = 2
EPISODES = 16  # of an evaluation
REPORTS = 20
CONSECUTIVE = 2  # reports with the right answer, so that none is right in passing only
LAST = REPORTS // 4  # reports whose mean counts in the end
LONGER = 5  # times the steps, for what is slow
ASKED = 4  # states of a probe, as if one came after the other but where an episode may begin


class Found(NamedTuple):
    """What an agent made of a probe."""

    values: np.ndarray  # [seeds, ASKED] of the first states, NaN where the agent has none; or
    # the `halves` of every other one, where quantiles are asked for
    returns: np.ndarray  # [seeds], of the evaluator
    right: np.ndarray  # bool [seeds], at the end
    steps: int  # until all were right for good, or as many as there were
    halted: bool  # whether an update came to NaN, where all seeds ended

    def passes(self, probe: Probe) -> bool:
        """Returns whether enough seeds are right."""
        return bool(self.right.all() or (probe.luck and self.right.mean() > 0.5))


def train(
    config: AgentConfig,
    probes: list[Probe],
    environment: Callable[[Table], Tabular],
    discount: float | None,
    steps: int,
    seeds: int = SEEDS,
    longer: int = LONGER,
) -> Iterator[tuple[Probe, Found]]:
    """Trains on each probe; yields what was found of it, advisory ones last.

    Args:
      config: of the agent, as it is to be run.
      probes: those that apply.
      environment: plays a table.
      discount: of the agent, which values depend on.
      steps: at most, for each probe and seed, or `longer` times as many for one that still gets
        better; all seeds of one stop once all answers are right.
      seeds: 0 to this.
    """
    agent = config.make(environment(make_table()).spec())
    program = lambda table: Program(agent, environment(table), NUM_ENVS, MEMBERS)

    def ask(run, table):
        how = environment(table), EPISODES, evaluation.MAX_STEPS
        play = device_evaluation.device_play(agent.evaluator, *how)
        states = jnp.arange(ASKED)
        seen, first = environment(table).observe(states), states < table.starts
        value = value_estimates.values(agent, run.state.learner, seen, first)
        halves = value_estimates.halves(agent, run.state.learner, seen, first)
        returned = play(run.state.learner.params, run.keys.act, run.keys.environment)[0].mean()
        unknown = jnp.full(ASKED, jnp.nan)
        return returned, unknown if value is None else value, unknown if halves is None else halves

    vmap = partial(jax.vmap, axis_name=MEMBERS)
    init = compilation.jit(vmap(lambda seed, table: program(table).init(seed)))
    advance = compilation.jit(
        vmap(lambda run, table, budget: program(table).advance(run, budget)),
        level=1,
        donate_argnums=0,
    )
    ask = compilation.jit(vmap(ask))
    seed = np.arange(seeds, dtype=np.uint32)
    each, plenty = (jnp.full(seeds, x) for x in (-(-steps // REPORTS), 2**30))
    longest = 0
    for probe in sorted(probes, key=lambda probe: probe.advisory):
        tables = jax.tree.map(lambda x: np.stack([x] * seeds), probe.table)
        # What is only a note is given the time that the others took.
        runs, done, streak, misses, answers = init(seed, tables), 0, 0, [], []
        settled, most, stopped = steps, steps, False
        if probe.advisory and longest:
            settled = most = longest
        while True:
            returns, values, halves = jax.device_get(ask(runs, tables))
            if probe.needs == "quantiles":
                values = halves[:, ::2].reshape(seeds, -1)
            answers.append((values, returns))
            misses.append(probe.miss(discount, values, returns))
            right = misses[-1] <= 1
            streak = streak + 1 if right.all() else 0
            settled = done if streak == 1 else settled
            # What is still on its way to the right answer is slow, not wrong.
            on_its_way = np.mean(misses[-1]) < 0.9 * np.mean(misses[-LAST:][0])
            enough = probe.advisory or not on_its_way or done >= longer * most
            late = stopped or (done >= most and enough)
            if late and not right.all():  # it may go up and down around what is right
                values, returns = (np.mean(x, axis=0) for x in zip(*answers[-LAST:], strict=True))
                right = probe.miss(discount, values, returns) <= 1
            if late or streak >= CONSECUTIVE:
                break
            runs, log = advance(runs, tables, Budget(each, plenty, plenty, plenty))
            gone = jax.device_get(log.steps)
            done, stopped = done + int(gone.max()), not gone.any()  # where all came to NaN
        longest = longest if probe.advisory else max(longest, done)
        yield probe, Found(values, returns, right, settled, stopped)
