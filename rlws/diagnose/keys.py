"""Checks of random numbers: no key twice, no two seeds alike."""

from collections.abc import Iterator

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.subject import Subject
from rlws.trainers import core, initial

ADVICE = "split the key: what is drawn twice from one key is not independent"
SEEDS = Question("learner: seeds", "each seed begins with parameters of its own", "different ones")


def check_keys(subject: Subject) -> Iterator[Check]:
    """Yields whether any key is used twice, and whether seeds differ."""
    agent, state = subject.agent, subject.state
    batch = jax.tree.map(jnp.asarray, subject.batches[0])
    zero = jnp.float32(0), jnp.float32(1), subject.spec.zero_observation()
    timestep = jax.tree.map(lambda x: x[None], dm_env.TimeStep(jnp.int32(0), *zero))
    carried = initial.initial_actor_state(agent.actor, 1)
    params, key = state.learner.params, jax.random.key(0)
    act = lambda raw: core.act(agent.actor, params, raw, jnp.int32(0), timestep, carried)
    learn = lambda key: agent.learner.learn(state.learner, batch, key)
    sample = lambda key: agent.adder.sample(state.adder, key)
    for name, function, given, where in (
        ("actor", act, jnp.zeros(2, jnp.uint32), locate(agent.actor, "select_action")),
        ("adder", sample, key, locate(agent.adder, "sample")),
        ("learner", learn, key, locate(agent.learner, "loss")),
    ):
        question = Question(f"{name}: keys", "no key is used twice", "each once", ADVICE)
        try:
            with jax.debug_key_reuse(True):
                jax.jit(function).lower(given)
            yield question.holds(True, "", where)
        except jax.errors.KeyReuseError as error:
            yield question.holds(False, str(error).partition("\n")[0], where)
    one, other = (jax.tree.leaves(x.learner.params) for x in (state, subject.init(1)))
    fine = not all(map(np.array_equal, one, other))
    yield SEEDS.holds(fine, "the same", locate(agent.learner, "init_params"))
