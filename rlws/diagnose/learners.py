"""Checks of a learner: what must change nothing in an update, and what must."""

from collections.abc import Iterator

import jax
import numpy as np

from rlws.diagnose import compilation, value_estimates
from rlws.diagnose.check import ANOTHER, SAME, Check, Question, is_real, locate
from rlws.diagnose.subject import Subject
from rlws.diagnose.targets import check_targets
from rlws.diagnose.updates import check_updates
from rlws.types import Trajectory

ORDER = Question(
    "learner: order",
    "trajectories of a batch do not depend on each other's place",
    SAME,
    "look for arrays of shape (B,) and (B, 1) that broadcast, or mixed axes",
)
COPIES = Question(
    "learner: copies",
    "losses are means, not sums, over the batch",
    SAME,
    "divide by the number of steps that have weight",
)
PADDING = Question(
    "learner: padding",
    "what has weight 0 does not count, whatever it is",
    SAME,
    "multiply by trajectory.weight, and mean over the steps that have it",
)
SEEDS = 8  # of what an update draws
ACROSS = (
    "with other adders there may be whole trajectories of weight 0, which `pmean` counts: average "
    'by psum(x * w, "batch") / psum(w, "batch")'
)
TERMINATION = Question(
    "learner: termination",
    "nothing is worth anything after an end",
    SAME,
    "multiply the value of what follows by trajectory.discount; nothing else in a loss may look at "
    "the next observation",
)
TRUNCATION = Question(
    "learner: truncation",
    "a time limit is no end: what follows still counts",
    ANOTHER,
    "truncation is treated as termination: bootstrap from the last observation, "
    "use trajectory.discount, not trajectory.last, and cut traces with trajectory.trace()",
)


def check_learner(subject: Subject) -> Iterator[Check]:
    """Yields what the learner must make of batches that differ in what must not, or must, count."""
    component = locate(subject.agent.learner, "loss")
    # The one with most ends of either kind.
    kinds = lambda b: min((b.last & (b.discount == d) & (b.weight > 0)).sum() for d in (0, 1))
    batch = max(subject.batches, key=kinds)
    whole = subject.loss_and_gradient(batch)

    def compare(question, other):
        # What must make a difference may make a small one, as in the loss of a histogram.
        rtol, atol = (1e-3, 1e-5) if question.expected == SAME else (1e-5, 1e-7)
        close = np.allclose(whole, other, rtol=rtol, atol=atol)
        got = "the same" if close else "loss {:.4g} and {:.4g}, gradient {:.4g} and {:.4g}"
        got = got.format(whole[0], other[0], whole[1], other[1])
        return question.answer(close == (question.expected == SAME), got, component)

    draws = not np.allclose(whole, subject.loss_and_gradient(batch, 1), rtol=1e-4, atol=1e-6)
    if not draws:
        order = np.random.default_rng(0).permutation(len(batch.reward))
        yield compare(ORDER, subject.loss_and_gradient(jax.tree.map(lambda x: x[order], batch)))
        twice, *more = (subject.loss_and_gradient(_repeated(batch, n)) for n in (2, 4))
        copies = compare(COPIES, twice)
        if copies.verdict == "fail" and looks_across(subject, batch):
            settles = _settle(whole, twice, *more)
            numbers = ", ".join(f"{x[1]:.4g}" for x in (whole, twice, *more))
            got = f"{'settles' if settles else 'does not settle'}: gradient {numbers}"
            copies = COPIES.answer(settles, got, component, "settles, as trajectories are compared")
        yield copies
    else:
        for question in (ORDER, COPIES):
            yield question.skip("the loss draws random numbers")
    padded = subject.loss_and_gradient(_padded(batch))
    padding = compare(PADDING, padded)
    if draws and padding.verdict == "fail":  # maybe as minibatches are others
        others = [subject.loss_and_gradient(batch, seed) for seed in range(SEEDS)]
        usual = np.abs(padded - np.mean(others, axis=0)) <= 4 * np.std(others, axis=0) + 1e-6
        content = subject.loss_and_gradient(_padded(batch, like=batch))
        if usual.all() and np.allclose(padded, content, rtol=1e-4, atol=1e-6):
            padding = PADDING.answer(True, "the same, whatever is in it", component)
    empty = any((b.weight == 0).all(axis=1).any() for b in subject.batches)
    if padding.verdict == "fail" and not empty and looks_across(subject, batch):
        padding = padding._replace(verdict="note", advice=ACROSS)
    yield padding
    real = np.asarray(batch.weight) > 0
    ended, cut = real & batch.last & (batch.discount == 0), real & batch.last & (batch.discount > 0)
    if ended.any():
        yield compare(TERMINATION, subject.loss_and_gradient(_shifted(batch, ended)))
    if not value_estimates.has_values(subject.agent, subject.spec):
        yield TRUNCATION.skip("no values")
    elif cut.any():
        yield compare(TRUNCATION, subject.loss_and_gradient(_shifted(batch, cut)))
    yield from check_targets(subject, batch)
    yield from check_updates(subject)


def _repeated(batch: Trajectory, copies: int) -> Trajectory:
    return jax.tree.map(lambda x: np.concatenate([x] * copies), batch)


def _settle(once: np.ndarray, twice: np.ndarray, four: np.ndarray) -> bool:
    """Returns whether loss and gradient norm tend to something as a batch is repeated.

    What a trajectory makes of the others, such as their mean without itself, differs by 1 / n from
    what it tends to. A sum grows; what is divided by n once more tends to 0.
    """
    steps = np.abs(twice - once), np.abs(four - twice)
    return bool((steps[1] <= 0.6 * steps[0] + 1e-4).all() and four[1] > 0.4 * once[1])


def looks_across(subject: Subject, batch: Trajectory) -> bool:
    """Returns whether the loss of one trajectory depends on the others of its batch."""
    learner, state = subject.agent.learner, subject.state.learner

    def losses(batch):
        batch, *_ = learner.prepare(state, batch)
        key = jax.random.key(0)
        loss = lambda trajectory: learner.loss(state.params, trajectory, key, state)[0]
        return jax.vmap(loss, axis_name="batch")(batch)

    found = compilation.jit(losses)
    more = np.random.default_rng(0).normal(size=batch.reward.shape).astype(np.float32)
    others = np.arange(len(more))[:, None] > np.zeros(more.shape)  # all but the first
    other = _shifted(batch, others)._replace(reward=batch.reward + more * others)
    try:
        one, another = (np.asarray(found(x))[0] for x in (batch, other))
    except Exception:  # what `update` makes of a batch first, the loss needs
        return False
    return not np.allclose(one, another, rtol=1e-3, atol=1e-5)


def _padded(batch: Trajectory, like: Trajectory | None = None) -> Trajectory:
    """Returns the batch with as many trajectories more, without weight, of NaN where can be.

    Or `like` others.
    """
    bad = lambda x: np.full_like(x, np.nan) if is_real(x) else x
    other = like or jax.tree.map(bad, batch)
    padding = other._replace(weight=jax.tree.map(np.zeros_like, batch.weight))
    return jax.tree.map(lambda *x: np.concatenate(x), batch, padding)


def _shifted(batch: Trajectory, steps: np.ndarray) -> Trajectory:
    """Returns the batch with other observations after some steps [B, T]."""
    after = np.pad(steps, ((0, 0), (1, 0)))
    shift = lambda x: x + np.ones_like(x) * after.reshape(after.shape + (1,) * (x.ndim - 2))
    return batch._replace(observation=jax.tree.map(shift, batch.observation))
