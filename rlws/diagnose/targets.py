"""Checks of what values are drawn to: bootstrapped right, linear in rewards, cut at ends."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlws.diagnose import compilation
from rlws.diagnose.check import Check, Question, is_real, locate
from rlws.diagnose.subject import Subject
from rlws.diagnose.value_estimates import has_values
from rlws.learner import Learner, LearnerState
from rlws.networks import batch_norm
from rlws.types import Array, Trajectory

BOOTSTRAP = Question(
    "learner: bootstrap",
    "where an end becomes a cut, the target grows by gamma times the value of what follows",
    "gamma V",
    "add discount * trajectory.discount times the value of the next observation, once: of the "
    "action that the policy learned about takes there, or their mean by its probabilities",
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
USES_EXTRA = Question(
    "learner: targets",
    "what the learner learns depends on its target networks, or whatever else it keeps",
    "another loss or update",
    "targets do not depend on the target network: take what follows from state.extra",
)
SEMI_GRADIENT = Question(
    "learner: semi-gradient",
    "no gradient flows through the values that others are drawn to",
    "none",
    "what is only seen after a step gets gradients: stop_gradient the targets, or take them from "
    "a target network",
)


def check_targets(subject: Subject, batch: Trajectory) -> Iterator[Check]:
    """Yields whether the targets of a batch (leaves [B, T, ...]) change as they must with it.

    They are what the loss calls `target`, or the `return` that is worked out before it.
    """
    component = locate(subject.agent.learner, "loss")
    if type(subject.agent.learner).loss is Learner.loss:
        yield from (question.skip("there is no loss") for question in (BOOTSTRAP, REWARDS, SPLIT))
        return
    targets = partial(_targets, subject.agent.learner, subject.state.learner)
    compiled = compilation.jit(targets)
    try:
        found = jax.eval_shape(targets, batch, jax.random.key(0))
    except Exception:  # what `update` makes of a batch first, the loss needs
        found = None
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


def check_gradients(subject: Subject, learned: LearnerState) -> Iterator[Check]:
    """Yields whether targets are of `extra`, where there is one, and constant."""
    # Of a target network: what else a learner keeps, such as data, may be of any use.
    shapes = {np.shape(x) for x in jax.tree.leaves(learned.params) if np.size(x) > 1}
    if any(np.shape(x) in shapes for x in jax.tree.leaves(learned.extra)):
        yield _check_extra(subject, learned)
    if batch_norm.statistics(learned.params):
        yield SEMI_GRADIENT.skip("what follows may be normalised with what was acted on")
    else:
        yield _check_semi_gradient(subject, learned)


def _check_extra(subject, state):
    """Returns whether an update changes where `extra` is another."""
    rng = np.random.default_rng(0)
    noise = lambda x: x + rng.normal(size=x.shape).astype(x.dtype) if is_real(x) else x
    other = state._replace(extra=jax.tree.map(noise, state.extra))
    learn = lambda state: subject.learn(state, subject.batches[-1], jax.random.key(0))
    (one, metrics), (another, changed) = learn(state), learn(other)
    numbers = lambda after, metrics: jax.tree.leaves([metrics.get("loss"), after.params])
    same = map(np.array_equal, numbers(one, metrics), numbers(another, changed))
    where = locate(subject.agent.learner, "loss")
    return USES_EXTRA.holds(not all(same), "the same", where)


def _check_semi_gradient(subject, learned):
    """Returns whether what is only seen after a step, and never acted on, reaches a gradient.

    The last feature is 0 everywhere, and then is not where nothing is done any more. Parameters
    that nothing had reached, whatever the rewards, such as the weights of that feature, must go on
    being left alone. Of the terms only what they make of batches counts: their losses may well
    look ahead.
    """
    learner, start = subject.agent.learner, subject.state.learner
    plain = dataclasses.replace(learner, terms=())
    # What has learned a little, and an optimiser that has no momentum yet.
    state = start._replace(params=learned.params, extra=learned.extra)

    @compilation.jit
    def moved(batch, size):
        batch, *_ = learner.prepare(state, batch)
        real = batch.weight > 0
        after = jnp.pad(real, ((0, 0), (1, 0))) & ~jnp.pad(real, ((0, 0), (0, 1)))
        seen = batch.observation.at[..., -1].set(size * after)
        params = plain.update(state, batch._replace(observation=seen), jax.random.key(0))[0].params
        return jax.tree.map(lambda x, y: x != y, params, dict(state.params))

    def newly(batch):
        others = [batch._replace(reward=batch.reward + np.float32(x)) for x in (1, -1)]
        before = jax.tree.map(lambda *x: sum(x) > 0, *(moved(x, 0.0) for x in (batch, *others)))
        return jax.tree.map(lambda x, y: np.any(y & ~x), before, moved(batch, 1.0))

    found = [x for batch in subject.batches[-4:] for x in jax.tree.leaves_with_path(newly(batch))]
    reached = dict.fromkeys(jax.tree_util.keystr(path) for path, x in found if x)
    where = locate(learner, "loss")
    return SEMI_GRADIENT.holds(not reached, f"through {', '.join([*reached][:2])}", where)


def _targets(learner: Learner, state: LearnerState, batch: Trajectory, key: Any) -> Array | None:
    def one(trajectory):
        trajectory = _prepared(learner, state.params, trajectory)
        metrics = learner.loss(state.params, trajectory, key, state)[1]
        return metrics.get("target", trajectory.extras.get("return"))

    return jax.vmap(one, axis_name="batch")(batch.masked())


def _prepared(learner: Learner, params: Any, trajectory: Trajectory) -> Trajectory:
    """Returns what PPO's `samples` makes of a trajectory; of another's of that name, nothing."""
    try:
        found = learner.samples(params, trajectory)  # type: ignore[attr-defined]
    except Exception:
        return trajectory
    return found if isinstance(found, Trajectory) else trajectory
