"""Checks of what is remembered: that it is recorded as it was, and that learners begin with it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rlws.diagnose import compilation
from rlws.diagnose.check import ANOTHER, SAME, Check, Question, is_real, locate
from rlws.diagnose.subject import EXPERIENCE, NUM_ENVS, ROWS, Subject
from rlws.trainers import core, initial

RECORDED = Question(
    "actor: core",
    "what is recorded as core is what was remembered before the step",
    "the same",
    "record the state that `select_action` was given, not the one that it returns",
)
BEGINS = Question(
    "learner: core",
    "memory begins with what was recorded",
    ANOTHER,
    'unroll from the first of trajectory.extras["core"], not from nothing',
)


def check_memory(subject: Subject) -> Iterator[Check]:
    """Yields what becomes of what an actor records as `core`; nothing where it records none."""
    rows, batches = subject.played
    extras = rows.extras
    found = extras.get("core") if isinstance(extras, dict) else None
    if not any(map(is_real, jax.tree.leaves(found))):
        return
    looks = lambda x: [(np.shape(x), np.result_type(x)) for x in jax.tree.leaves(x)]
    same = lambda x: looks(x) == looks(found)
    # Wrappers of an actor carry things of their own beside.
    carried = filter(same, jax.tree.leaves(_remembered(subject), is_leaf=same))
    before = next(carried, None)
    if before is None:
        return
    later = np.asarray(rows.timestep.step_type) != 0  # at first it may be what it is reset to
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(before), strict=True)
    apart = max(float(np.abs(x - y)[later].max()) for x, y in leaves)
    where = locate(subject.agent.actor, "select_action")
    yield RECORDED.holds(apart < 1e-4, f"up to {apart:.3g} apart", where)
    if not batches:
        return
    # Of one episode, in the middle of which each trajectory begins.
    batch, no = batches[-1], jnp.zeros_like
    batch = batch._replace(
        first=no(batch.first), last=no(batch.last), weight=jnp.ones_like(batch.weight)
    )
    other = jax.tree.map(lambda x: x + np.ones_like(x), batch.extras["core"])
    other = batch._replace(extras={**batch.extras, "core": other})
    loss, another = (subject.loss_and_gradient(x) for x in (batch, other))
    where = locate(subject.agent.learner, "loss")
    yield BEGINS.holds(not np.allclose(loss, another, rtol=1e-5, atol=1e-7), SAME, where)


def _remembered(subject):
    """Returns the actor's state before each row of what is played, [ROWS, NUM_ENVS, ...]."""
    actor, params = subject.agent.actor, subject.state.learner.params

    def step(state, inputs):
        key = jnp.zeros(2, jnp.uint32)
        row, now = inputs
        return core.act(actor, params, key, row, now, state)[1], state

    start = initial.initial_actor_state(actor, NUM_ENVS)
    inputs = jnp.arange(ROWS), jax.tree.map(lambda x: x[:-1], EXPERIENCE.timestep)
    return jax.device_get(compilation.jit(lambda: jax.lax.scan(step, start, inputs)[1])())
