"""Checks of what values are drawn to: bootstrapped right, linear in rewards, cut at ends."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.diagnose.check import Check, Verdict, locate
from rlws.learner import LearnerState
from rlws.types import Array, Trajectory

NAMES = ("bootstrap", "rewards", "split")
ISOLATES = (
    "where an end becomes a cut, the target grows by gamma times the value of what follows",
    "targets are linear in rewards",
    "what comes after the end of an episode reaches no target before it",
)
ADVICE = (
    "add discount * trajectory.discount times the value of the next observation, once",
    "rewards are clipped, squashed or counted more than once",
    "cut traces at episode ends with trajectory.trace(), as if the unroll were split there",
)


def check_targets(
    agent: Agent, state: LearnerState, batch: Trajectory, gamma: float | None
) -> Iterator[Check]:
    """Yields whether the targets of a batch (leaves [B, T, ...]) change as they must with it.

    They are what the loss calls `target`, or the `return` that is worked out before it.
    """
    component = locate(agent.learner, "loss")
    of = jax.jit(partial(_targets, agent, state))
    found = jax.eval_shape(of, batch, jax.random.key(0))
    if found is None or found.shape != batch.reward.shape:
        reason = "the loss tells no target of each step"
        for name, isolates in zip(NAMES, ISOLATES, strict=True):
            yield Check(f"learner: {name}", isolates, "", reason, "skip")
        return
    drawn = not np.allclose(of(batch, jax.random.key(0)), of(batch, jax.random.key(1)))
    targets = lambda batch: np.asarray(of(batch, jax.random.key(0)))
    real = np.asarray(batch.weight > 0)
    ends = np.asarray(batch.last) & real

    def say(i, expected, wrong, where):
        off = np.abs(wrong)[where]
        if not off.size:
            return Check(f"learner: {NAMES[i]}", ISOLATES[i], "", "no such step", "skip")
        fine = off.max() < 1e-3
        got = "the same" if fine else f"up to {off.max():.3g} apart in {len(off)} steps"
        verdict: Verdict = "pass" if fine else "fail"
        name, isolates = f"learner: {NAMES[i]}", ISOLATES[i]
        return Check(name, isolates, expected, got, verdict, component, ADVICE[i])

    values = _values(agent, state, batch)
    if gamma is None or values is None or drawn:
        reason = "targets are drawn at random" if drawn else "no values"
        reason = "the discount is not known: give it" if gamma is None else reason
        yield Check(f"learner: {NAMES[0]}", ISOLATES[0], "", reason, "skip")
    else:
        ended, cut = (
            targets(batch._replace(discount=jnp.where(ends, x, batch.discount))) for x in (0.0, 1.0)
        )
        yield say(0, "gamma V", cut - ended - gamma * np.asarray(values)[:, 1:], ends)
    rng = np.random.default_rng(0)
    more = jnp.asarray(rng.normal(size=batch.reward.shape), jnp.float32)
    once, thrice = (targets(batch._replace(reward=batch.reward + n * more)) for n in (1, 3))
    before = targets(batch)
    yield say(1, "three times the change", (thrice - before) - 3 * (once - before), real)
    passed = np.cumsum(ends, axis=1) - ends > 0  # steps after the first end of their unroll
    # After a termination nothing counts anyway; so all ends are cuts here.
    cuts = batch._replace(discount=jnp.where(ends, 1.0, batch.discount))
    other = targets(cuts._replace(reward=batch.reward + 10.0 * passed))
    yield say(
        2, "no change", other - targets(cuts), real & ~passed & passed.any(axis=1, keepdims=True)
    )


def _targets(agent: Agent, state: LearnerState, batch: Trajectory, key: Any) -> Array | None:
    learner = agent.learner
    prepared = getattr(learner, "samples", lambda params, trajectory: trajectory)

    def one(trajectory):
        trajectory = prepared(state.params, trajectory)
        metrics = learner.loss(state.params, trajectory, key, state)[1]
        return metrics.get("target", trajectory.extras.get("return"))

    return jax.vmap(one, axis_name="batch")(batch.masked())


def _values(agent, state, batch):
    value = partial(agent.learner.value, state.params)
    known = jax.eval_shape(value, jax.tree.map(lambda x: x[0], batch)) is not None
    return jax.jit(jax.vmap(value))(batch) if known else None
