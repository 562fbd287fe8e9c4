"""Runs the ladder: every probe with every seed, all members of one compiled program."""

from collections.abc import Container, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent, AgentConfig
from rlws.diagnose import beliefs
from rlws.diagnose.probes import Probe
from rlws.diagnose.tabular import FEATURES, Tabular, blank
from rlws.trainers import evaluation
from rlws.trainers.population import AXIS
from rlws.trainers.program import Budget, Program

SEEDS = 10
NUM_ENVS = 2
EPISODES = 16  # of an evaluation
REPORTS = 20
CONSECUTIVE = 2  # reports with the right answer, so that none is right in passing only


class Found(NamedTuple):
    """What an agent made of a probe; arrays have an entry for each seed."""

    values: np.ndarray | None  # [seeds, states asked]
    returns: np.ndarray | None  # [seeds], of the evaluator
    right: np.ndarray  # bool [seeds], at the end
    steps: int  # until all were right for good, or those of the whole budget


def run(
    config: AgentConfig,
    probes: list[Probe],
    discount: float | None,
    continuous: bool,
    steps: int,
    seeds: int = SEEDS,
    optional: Container[str] = (),
    masked: bool = False,
) -> Iterator[tuple[int, dict[str, Found]]]:
    """Trains on all probes; yields the steps so far, and what was found, as it goes.

    Args:
      config: of the agent, as it is to be run.
      probes: those that apply.
      discount: of the agent, which values depend on.
      continuous: whether its actions are.
      steps: at most, for each probe and seed; all stop together once all answers are right.
      seeds: 0 to this.
      optional: names of probes that are not waited for.
      masked: whether observations have an action mask.
    """
    place = partial(Tabular, continuous=continuous, masked=masked)
    agent = config.make(place(blank()).spec())
    program = lambda table: Program(agent, place(table), NUM_ENVS, AXIS)
    tables = _stack([probe.table for probe in probes for _ in range(seeds)])
    seed = jnp.tile(jnp.arange(seeds, dtype=jnp.uint32), len(probes))
    asked = _stack([_question(probe) for probe in probes for _ in range(seeds)])

    def ask(run, table, question):
        play = evaluation.device_play(agent, place(table), EPISODES)
        states, first = question
        value = beliefs.values(agent, run.state.learner, place(table).observe(states), first)
        returned = play(run.state.learner.params, run.keys.act, run.keys.environment)[0].mean()
        return returned, (jnp.full(len(states), jnp.nan) if value is None else value)

    vmap = partial(jax.vmap, axis_name=AXIS)
    init = jax.jit(vmap(lambda seed, table: program(table).init(seed)))
    advance = jax.jit(
        vmap(lambda run, table, budget: program(table).advance(run, budget)), donate_argnums=0
    )
    ask = jax.jit(vmap(ask))
    runs, done, streak = init(seed, tables), 0, np.zeros(len(probes), int)
    settled = np.full(len(probes), steps)
    waited = [i for i, probe in enumerate(probes) if probe.name not in optional]
    each = jnp.full(len(seed), -(-steps // REPORTS))
    plenty = jnp.full(len(seed), 2**30)
    while True:
        returns, values = jax.device_get(ask(runs, tables, asked))
        shape = lambda x: x.reshape(len(probes), seeds, *x.shape[1:])
        found = {}
        for i, probe in enumerate(probes):
            one = _judge(probe, discount, shape(values)[i], shape(returns)[i])
            streak[i] = streak[i] + 1 if one.right.all() else 0
            settled[i] = done if streak[i] == 1 else settled[i] if streak[i] else steps
            found[probe.name] = one._replace(steps=int(settled[i]))
        yield done, found
        if done >= steps or (streak[waited] >= CONSECUTIVE).all():
            return
        runs, log = advance(runs, tables, Budget(each, plenty, plenty, plenty))
        done += int(jax.device_get(log.steps).min())


def has_values(agent: Agent) -> bool:
    """Returns whether an agent that plays tables has an idea of what observations are worth."""
    observations, first = jnp.zeros((2, FEATURES)), jnp.array([True, False])

    def ask():
        state = agent.learner.init(jax.random.key(0))
        found = beliefs.values(agent, state, observations, first)
        return () if found is None else found

    return jax.eval_shape(ask) != ()


def _question(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Returns the states to ask about, as many for each probe, and which begin an episode."""
    states = [s for episode in probe.episodes for s in episode]
    first = [i == 0 for episode in probe.episodes for i, _ in enumerate(episode)]
    rest = 5 - len(states)
    return np.array(states + [0] * rest, np.int32), np.array(first + [True] * rest)


def _judge(probe: Probe, discount: float | None, values: np.ndarray, returns: np.ndarray) -> Found:
    if probe.values is not None and discount is not None:
        expected = np.array(probe.values(discount))
        values = values[:, : len(expected)]
        limit = probe.tolerance * np.abs(expected).max()
        right = (np.abs(values - expected) <= limit).all(axis=1)
        return Found(values, None, right, 0)
    right = returns >= (probe.best or 0.0) - probe.tolerance * probe.spread
    return Found(None, returns, right, 0)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *trees)
