"""Checks of what values are drawn to: bootstrapped right, linear in rewards, cut at ends."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from rlws.diagnose import compilation
from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.subject import Subject
from rlws.diagnose.value_estimates import has_values
from rlws.learner import Learner, LearnerState
from rlws.types import Array, Trajectory

BOOTSTRAP = Question(
    "learner: bootstrap",
    "where an end becomes a cut, the target grows by gamma times the value of what follows",
    "gamma V",
    "add discount * trajectory.discount times the value of the next observation, once",
)
REWARDS = Question(
    "learner: rewards",
    "targets are linear in rewards",
    "three times the change",
    "rewards are clipped, squashed or counted more than once",
)
SPLIT = Question(
    "learner: split",
    "what comes after the end of an episode reaches no target before it",
    "no change",
    "cut traces at episode ends with trajectory.trace(), as if the unroll were split there",
)


def check_targets(subject: Subject, batch: Trajectory) -> Iterator[Check]:
    """Yields whether the targets of a batch (leaves [B, T, ...]) change as they must with it.

    They are what the loss calls `target`, or the `return` that is worked out before it.
    """
    component = locate(subject.agent.learner, "loss")
    targets = partial(_targets, subject.agent.learner, subject.state.learner)
    compiled = compilation.jit(targets)
    found = jax.eval_shape(targets, batch, jax.random.key(0))
    if found is None or found.shape != batch.reward.shape:
        for question in (BOOTSTRAP, REWARDS, SPLIT):
            yield question.skip("the loss tells no target of each step")
        return
    of = lambda seed=0, **fields: np.asarray(
        compiled(batch._replace(**fields), jax.random.key(seed))
    )
    before, gamma = of(), subject.discount
    drawn = not np.allclose(before, of(seed=1))
    real = batch.weight > 0
    ends = batch.last & real

    def say(question, wrong, where, limit=1e-3):
        off = np.abs(wrong)[where]
        if not off.size:
            return question.skip("no such step")
        fine = off.max() < limit
        got = "the same" if fine else f"up to {off.max():.3g} apart in {len(off)} steps"
        return question.answer(fine, got, component)

    if gamma is None:
        yield BOOTSTRAP.skip("the discount is not known: give it")
    elif drawn:
        yield BOOTSTRAP.skip("targets are drawn at random")
    elif not has_values(subject.agent, subject.spec):
        yield BOOTSTRAP.skip("no values")
    else:
        value = partial(subject.agent.learner.value, subject.state.learner.params)
        values = np.asarray(compilation.jit(jax.vmap(value))(batch))
        ended, cut = (of(discount=np.where(ends, np.float32(x), batch.discount)) for x in (0, 1))
        follows = gamma * values[:, 1:]
        # What is followed need not be the best action always, nor without a bonus.
        limit = max(1e-3, 0.05 * np.abs(follows[ends]).max(initial=0.0))
        yield say(BOOTSTRAP, cut - ended - follows, ends, limit)
    more = np.random.default_rng(0).normal(size=batch.reward.shape).astype(np.float32)
    once, thrice = (of(reward=batch.reward + np.float32(n) * more) for n in (1, 3))
    yield say(REWARDS, (thrice - before) - 3 * (once - before), real)
    passed = np.cumsum(ends, axis=1) - ends > 0  # steps after the first end of their unroll
    # After a termination nothing counts anyway; so all ends are cuts here.
    cuts = np.where(ends, np.float32(1), batch.discount)
    other = of(discount=cuts, reward=batch.reward + np.float32(10) * passed)
    early = real & ~passed & passed.any(axis=1, keepdims=True)
    yield say(SPLIT, other - of(discount=cuts), early)


def _targets(learner: Learner, state: LearnerState, batch: Trajectory, key: Any) -> Array | None:
    prepared = getattr(learner, "samples", lambda params, trajectory: trajectory)

    def one(trajectory):
        trajectory = prepared(state.params, trajectory)
        metrics = learner.loss(state.params, trajectory, key, state)[1]
        return metrics.get("target", trajectory.extras.get("return"))

    return jax.vmap(one, axis_name="batch")(batch.masked())
