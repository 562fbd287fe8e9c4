"""Trains an agent on probes: each with every seed, all members of one compiled program."""

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
from rlws.trainers import evaluation
from rlws.trainers.device_run import Budget
from rlws.trainers.population import AXIS
from rlws.trainers.program import Program

SEEDS = 10
NUM_ENVS = 2
EPISODES = 16  # of an evaluation
REPORTS = 20
CONSECUTIVE = 2  # reports with the right answer, so that none is right in passing only
ASKED = 4  # states of a probe, as if one came after the other but where an episode may begin


class Found(NamedTuple):
    """What an agent made of a probe."""

    values: np.ndarray  # [seeds, ASKED] of the first states, NaN where the agent has none
    returns: np.ndarray  # [seeds], of the evaluator
    right: np.ndarray  # bool [seeds], at the end
    steps: int  # until all were right for good, or those of the whole budget


def train(
    config: AgentConfig,
    probes: list[Probe],
    environment: Callable[[Table], Tabular],
    discount: float | None,
    steps: int,
    seeds: int = SEEDS,
) -> Iterator[tuple[int, dict[str, Found]]]:
    """Trains on all probes; yields the steps so far, and what was found, as it goes.

    Args:
      config: of the agent, as it is to be run.
      probes: those that apply.
      environment: plays a table.
      discount: of the agent, which values depend on.
      steps: at most, for each probe and seed; all stop together once all answers are right. Those
        of advisory probes are not waited for.
      seeds: 0 to this.
    """
    agent = config.make(environment(make_table()).spec())
    program = lambda table: Program(agent, environment(table), NUM_ENVS, AXIS)

    def ask(run, table):
        play = evaluation.device_play(agent, environment(table), EPISODES)
        states = jnp.arange(ASKED)
        seen, first = environment(table).observe(states), states < table.starts
        value = value_estimates.values(agent, run.state.learner, seen, first)
        returned = play(run.state.learner.params, run.keys.act, run.keys.environment)[0].mean()
        return returned, (jnp.full(ASKED, jnp.nan) if value is None else value)

    vmap = partial(jax.vmap, axis_name=AXIS)
    # A core takes far longer to run than the rest: compiling it well is worth it.
    jit = jax.jit if agent.learner.network.recurrent else compilation.jit
    init = jit(vmap(lambda seed, table: program(table).init(seed)))
    advance = jit(
        vmap(lambda run, table, budget: program(table).advance(run, budget)), donate_argnums=0
    )
    ask = jit(vmap(ask))
    stack = lambda *tables: np.stack([table for table in tables for _ in range(seeds)])
    tables = jax.tree.map(stack, *(probe.table for probe in probes))
    seed = np.tile(np.arange(seeds, dtype=np.uint32), len(probes))
    runs, done, streak = init(seed, tables), 0, np.zeros(len(probes), int)
    settled = np.full(len(probes), steps)
    waited = [i for i, probe in enumerate(probes) if not probe.advisory]
    each, plenty = (jnp.full(len(seed), x) for x in (-(-steps // REPORTS), 2**30))
    while True:
        answers = jax.device_get(ask(runs, tables))
        found = {}
        for i, probe in enumerate(probes):
            returns, values = (x[i * seeds : (i + 1) * seeds] for x in answers)
            right = probe.right(discount, values, returns)
            streak[i] = streak[i] + 1 if right.all() else 0
            settled[i] = done if streak[i] == 1 else settled[i] if streak[i] else steps
            found[probe.name] = Found(values, returns, right, int(settled[i]))
        yield done, found
        if done >= steps or (streak[waited] >= CONSECUTIVE).all():
            return
        runs, log = advance(runs, tables, Budget(each, plenty, plenty, plenty))
        done += int(jax.device_get(log.steps).min())
