"""Adder, learner and actor one by one: properties that hold whatever the algorithm."""

from collections.abc import Collection, Iterator

import jax

from rlws.agent import Agent, AgentConfig
from rlws.diagnose.actors import check_actor, check_log_prob
from rlws.diagnose.adders import collect
from rlws.diagnose.check import Check
from rlws.diagnose.keys import check_keys
from rlws.diagnose.learners import check_learner
from rlws.diagnose.spreads import check_spreads
from rlws.diagnose.stream import NUM_ENVS, make_stream
from rlws.settings import SettingError
from rlws.trainers import core
from rlws.trainers.tracebacks import place_of
from rlws.types import EnvironmentSpec

PARTS = ("actor", "adder", "learner")
LEARNED = 5  # updates


def check_compiles(agent: Agent, spec: EnvironmentSpec) -> Check | None:
    """Returns what fails where the agent cannot even be compiled, with the line; None: it can."""
    try:
        jax.eval_shape(lambda: core.init(agent, spec, 0, NUM_ENVS))
    except SettingError:  # which says what to do
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip()}".partition("\n")[0]
        isolates = "what actor and learner compute can be compiled"
        place = place_of(error)
        return Check("agent: shapes", isolates, "no error", "an error", "fail", place, text)
    return None


def check_all(
    config: AgentConfig,
    spec: EnvironmentSpec,
    parts: Collection[str] = PARTS,
    gamma: float | None = None,
) -> Iterator[Check]:
    """Yields the checks of some parts.

    The agent of `config` learns from whole batches at once, in any order; `gamma` is its discount,
    if known.
    """
    agent = config.make(spec)
    state = jax.jit(lambda: core.init(agent, spec, 0, NUM_ENVS))()
    stream = make_stream(agent, spec, state)
    if "actor" in parts:
        yield from check_actor(agent, spec, state.learner)
    batches, found = collect(agent, state, stream)
    yield from found
    if batches and "actor" in parts:
        learner, learn = state.learner, jax.jit(agent.learner.learn)
        for i, batch in enumerate(batches[:LEARNED]):
            learner, _ = learn(learner, batch, jax.random.key(i))
        stream = make_stream(agent, spec, state._replace(learner=learner))
        yield from check_log_prob(agent, learner, collect(agent, state, stream)[0])
    if batches and "learner" in parts:
        yield from check_learner(agent, state.learner, batches, gamma)
        yield from check_spreads(config, spec, state.learner, batches[0])
    if batches:
        yield from check_keys(agent, spec, state, batches[0])
