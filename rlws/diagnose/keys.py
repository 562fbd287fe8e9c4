"""Checks of random numbers: no key twice, no two seeds alike."""

from collections.abc import Iterator

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.diagnose.check import Check, locate
from rlws.trainers import core
from rlws.types import EnvironmentSpec, Trajectory


def check_keys(
    agent: Agent, spec: EnvironmentSpec, state: core.State, batch: Trajectory
) -> Iterator[Check]:
    """Yields whether any key is used twice, and whether seeds differ."""
    timestep = dm_env.TimeStep(
        jnp.int32(0), jnp.float32(0), jnp.float32(1), spec.zero_observation()
    )
    one = jax.tree.map(lambda x: x[None], timestep)
    carried = core.initial_actor_state(agent.actor, 1)
    raw, key = jnp.zeros(2, jnp.uint32), jax.random.key(0)
    batch = jax.tree.map(jnp.asarray, batch)
    act = lambda raw: core.act(agent.actor, state.learner.params, raw, jnp.int32(0), one, carried)
    learn = lambda key: agent.learner.learn(state.learner, batch, key)
    sample = lambda key: agent.adder.sample(state.adder, key)
    for name, function, given, where in (
        ("actor", act, raw, locate(agent.actor, "select_action")),
        ("adder", sample, key, locate(agent.adder, "sample")),
        ("learner", learn, key, locate(agent.learner, "loss")),
    ):
        try:
            with jax.debug_key_reuse(True):
                jax.jit(function).lower(given)
            got = ""
        except jax.errors.KeyReuseError as error:
            got = str(error).partition("\n")[0]
        yield Check(
            f"{name}: keys",
            "no key is used twice",
            "each once",
            got or "each once",
            "fail" if got else "pass",
            where,
            "split the key: what is drawn twice from one key is not independent",
        )
    params = [jax.jit(lambda s: core.init(agent, spec, s, 1).learner.params)(s) for s in (0, 1)]
    differ = lambda x, y: not np.array_equal(x, y)
    fine = any(jax.tree.leaves(jax.tree.map(differ, *params)))
    yield Check(
        "learner: seeds",
        "each seed begins with parameters of its own",
        "different ones",
        "different ones" if fine else "the same",
        "pass" if fine else "fail",
        locate(agent.learner, "init_params"),
    )
