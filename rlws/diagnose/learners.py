"""Checks of a learner: what must change nothing in an update, and what must."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlws.diagnose import compilation, value_estimates
from rlws.diagnose.check import Check, Question, is_params, is_real, locate
from rlws.diagnose.subject import Subject
from rlws.diagnose.targets import check_gradients, check_targets
from rlws.diagnose.toy import discount_name
from rlws.networks.prior import PRIOR
from rlws.types import Trajectory

PACE = Question(
    "learner: pace",
    "targets stay, or move towards the parameters as far as the settings say",
    "target_rate, or a copy",
    "extra + target_rate * (params - extra), params being the new ones",
)
UPDATES = 45  # enough for most target networks of a small agent to move
MANY = 2_000  # more, where one has not
SAME, ANOTHER = "the same loss and gradient", "another loss or gradient"
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
NUMBERS = Question("learner: numbers", "updates stay finite", "finite")
PARAMETERS = Question(
    "learner: parameters",
    "every parameter is learned",
    "all move",
    "a gradient is missing: look for a stop_gradient too many, or an output nobody uses",
)
EXTRA = Question(
    "learner: extra",
    "target networks and other state move",
    "all move",
    "the target network is never updated",
)
DISCOUNT = Question(
    "learner: discount",
    "what follows counts for less with a lower discount",
    ANOTHER,
    "the discount that settings say is not used: multiply what follows by it",
)
PRIORITY = Question(
    "learner: priority",
    "what is further from its target is drawn more often",
    "higher priorities",
    "a priority is how large the error is: its absolute value, or the loss of a histogram",
)
WEIGHTS = Question(
    "learner: weights",
    "importance weights count",
    ANOTHER,
    "an entry of a loss for each step is multiplied by trajectory.weight; what is one number, or "
    "a step of one's own, has to be",
)
LOWER = 0.5
RATES = "target_rate", "tau", "target_update_rate"  # names of the setting
FURTHER = np.float32(10)  # than any value


def check_learner(subject: Subject) -> Iterator[Check]:
    """Yields what the learner must make of batches that differ in what must not, or must, count."""
    component = locate(subject.agent.learner, "loss")
    # The one with most ends of either kind.
    kinds = lambda b: min((b.last & (b.discount == d) & (b.weight > 0)).sum() for d in (0, 1))
    batch = max(subject.batches, key=kinds)
    whole = _numbers(subject, batch)

    def compare(question, other):
        # What must make a difference may make a small one, as in the loss of a histogram.
        rtol, atol = (1e-3, 1e-5) if question.expected == SAME else (1e-5, 1e-7)
        close = np.allclose(whole, other, rtol=rtol, atol=atol)
        got = "the same" if close else "loss {:.4g} and {:.4g}, gradient {:.4g} and {:.4g}"
        got = got.format(whole[0], other[0], whole[1], other[1])
        return question.answer(close == (question.expected == SAME), got, component)

    if np.allclose(whole, _numbers(subject, batch, seed=1), rtol=1e-4, atol=1e-6):
        order = np.random.default_rng(0).permutation(len(batch.reward))
        yield compare(ORDER, _numbers(subject, jax.tree.map(lambda x: x[order], batch)))
        twice, *more = (_numbers(subject, _repeated(batch, n)) for n in (2, 4))
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
    padding = compare(PADDING, _numbers(subject, _padded(batch)))
    empty = any((b.weight == 0).all(axis=1).any() for b in subject.batches)
    if padding.verdict == "fail" and not empty and looks_across(subject, batch):
        padding = padding._replace(verdict="note", advice=ACROSS)
    yield padding
    real = np.asarray(batch.weight) > 0
    ended, cut = real & batch.last & (batch.discount == 0), real & batch.last & (batch.discount > 0)
    if ended.any():
        yield compare(TERMINATION, _numbers(subject, _shifted(batch, ended)))
    if not value_estimates.has_values(subject.agent, subject.spec):
        yield TRUNCATION.skip("no values")
    elif cut.any():
        yield compare(TRUNCATION, _numbers(subject, _shifted(batch, cut)))
    yield from check_targets(subject, batch)
    yield from _check_updates(subject)


def _check_updates(subject):
    learner, before = subject.agent.learner, subject.state.learner
    loss, after, batches = locate(learner, "loss"), before, subject.batches
    for i in range(UPDATES):
        after, _ = subject.learn(after, batches[i % len(batches)], jax.random.key(i))
    after = jax.device_get(after)
    finite = all(np.isfinite(x).all() for x in jax.tree.leaves(after) if is_real(x))
    yield NUMBERS.holds(finite, "NaN or infinity", loss)

    def moves(question, name, stuck, component):
        names = (name + jax.tree_util.keystr(path) for path in stuck[:3])
        return question.holds(not stuck, f"{', '.join(names)} never moved", component)

    yield moves(PARAMETERS, "", _stuck(before.params, after.params), loss)
    yield from check_gradients(subject, after)
    yield from _check_discount(subject, after)
    if jax.tree.leaves(before.extra):
        stuck = _stuck(before.extra, after.extra)
        if stuck:  # it may be copied once in a while only
            stuck = _stuck(before.extra, _later(subject, after).extra)
        yield moves(EXTRA, "extra", stuck, locate(learner, "update"))
    yield from _check_pace(subject, after)
    yield from _check_priority(subject, after)


def _stuck(old, new):
    """Returns the paths of arrays that are the same in two trees, but those that shall be."""
    leaves = zip(jax.tree.leaves_with_path(old), jax.tree.leaves(new), strict=True)
    fixed = jax.tree_util.DictKey(PRIOR)
    same = lambda path, x, y: jnp.size(x) > 1 and np.array_equal(x, y) and fixed not in path
    return [path for (path, x), y in leaves if same(path, x, y)]


def _later(subject, state):
    """Returns the state after many more updates."""
    learn, key = subject.agent.learner.learn, jax.random.key(0)
    batch = jax.tree.map(jnp.asarray, subject.batches[-1])
    step = lambda i, state: learn(state, batch, jax.random.fold_in(key, i))[0]
    many = compilation.jit(lambda state: jax.lax.fori_loop(0, MANY, step, state))
    return jax.device_get(many(state))


def _check_discount(subject, state):
    """Yields whether the setting is used, where the learner must use it, and nobody before it."""
    adder, name = subject.agent.adder, discount_name(subject.config)
    before = not type(adder).__module__.startswith("rlws.") or getattr(adder, "n_step", 1) > 1
    if name is None or before or not getattr(subject.config, name):
        return
    if (lower := subject.learn_with(name, LOWER)) is None:
        return
    args = state, subject.batches[-1], jax.random.key(0)
    found = subject.learn(*args), lower(*args)
    told, low = (jax.tree.leaves((after.params, metrics)) for after, metrics in found)
    same = all(np.allclose(x, y, rtol=1e-6, atol=1e-9) for x, y in zip(told, low, strict=True))
    yield DISCOUNT.holds(not same, SAME, locate(subject.agent.learner, "loss"))


def _check_pace(subject, state):
    """Yields whether target networks, which look like parameters, go where they must."""
    learner = subject.agent.learner
    rate = next((x for x in (getattr(subject.config, name, None) for name in RATES) if x), None)
    part = lambda x: _like(state.params, jax.tree.structure(x)) if is_params(x) else None
    known = lambda x: part(x) is not None
    copies = lambda tree: [x for x in jax.tree.leaves(tree, is_leaf=known) if known(x)]
    parts: list[Any] = [part(x) for x in copies(state.extra)]
    if not parts or not (rate or _has_period(subject.config)):
        return
    # Far from the parameters: each step towards them can be told from any other.
    far = jax.tree.map(lambda x: x + np.float32(1) if is_real(x) else x, state.extra)
    state, wrong = state._replace(extra=far), False
    for i in range(3):
        old = jax.tree.leaves(copies(state.extra))
        state, _ = subject.learn(state, subject.batches[-1], jax.random.key(i))
        new = jax.tree.leaves(copies(state.extra))
        towards = jax.tree.leaves([part(state.params) for part in parts])
        goes = lambda r: all(
            np.allclose(y, x + r * (p - x), atol=1e-4)
            for x, y, p in zip(old, new, towards, strict=True)  # noqa: B023
        )
        wrong |= not any(map(goes, [0.0, rate or 1.0]))
    yield PACE.holds(not wrong, "another way, or another pace", locate(learner, "update"))


def _check_priority(subject, state):
    """Yields whether priorities, where there are any, grow with errors, and weights count."""
    batch, key = subject.batches[-1], jax.random.key(0)
    told = lambda reward: subject.learn(state, batch._replace(reward=reward), key)[1]
    if "priority" not in (metrics := told(batch.reward)):
        return
    mean = lambda metrics: float(np.mean(metrics["priority"]))
    more = [mean(told(batch.reward + x * (batch.weight > 0))) for x in (FURTHER, -FURTHER)]
    got = f"{mean(metrics):.3g}, then {more[0]:.3g} and {more[1]:.3g}"
    where = locate(subject.agent.learner, "loss")
    yield PRIORITY.holds(min(more) > mean(metrics), got, where)
    half = batch.weight.copy()
    half[: len(half) // 2] *= np.float32(0.5)
    found = _numbers(subject, batch), _numbers(subject, batch._replace(weight=half))
    yield WEIGHTS.holds(not np.allclose(*found, rtol=1e-5), SAME, where)


def _like(params, structure):
    """Returns what finds the part of parameters that has a structure; None: there is none."""
    if jax.tree.structure(params) == structure:
        return lambda params: params
    for name, x in params.items() if isinstance(params, dict) else ():
        if jax.tree.structure(x) == structure:
            return lambda params, name=name: params[name]
    return None


def _has_period(config):
    return getattr(config, "target_period", None) is not None


def _numbers(subject, batch, seed=0):
    """Returns loss and gradient norm of an update; where it tells none, how far its state moved."""
    before = subject.learner_for(batch)
    after, metrics = subject.learn(before, batch, jax.random.key(seed))
    if "gradient_norm" in metrics:
        return np.array([metrics.get("loss", 0.0), metrics["gradient_norm"]])
    moved = jax.tree.map(lambda x, y: np.sum(np.square(np.float64(x) - y)), after[:2], before[:2])
    return np.array([metrics.get("loss", 0.0), np.sqrt(sum(jax.tree.leaves(moved)))])


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
    rng = np.random.default_rng(0)
    noise = lambda x: (
        np.float32(rng.normal(size=x.shape))
        * (np.arange(len(x)) > 0).reshape(-1, *[1] * (np.ndim(x) - 1))
    )
    moved = lambda x: (x + noise(x)).astype(x.dtype) if is_real(x) else x
    other = batch._replace(
        reward=moved(batch.reward), observation=jax.tree.map(moved, batch.observation)
    )
    try:
        one, another = (np.asarray(found(x))[0] for x in (batch, other))
    except Exception:  # what `update` makes of a batch first, the loss needs
        return False
    return not np.allclose(one, another, rtol=1e-3, atol=1e-5)


def _padded(batch: Trajectory) -> Trajectory:
    """Returns the batch with as many trajectories more, without weight, of NaN where can be."""
    bad = lambda x: np.full_like(x, np.nan) if is_real(x) else x
    padding = jax.tree.map(bad, batch)._replace(weight=np.zeros_like(batch.weight))
    return jax.tree.map(lambda *x: np.concatenate(x), batch, padding)


def _shifted(batch: Trajectory, steps: np.ndarray) -> Trajectory:
    """Returns the batch with other observations after some steps [B, T]."""
    after = np.pad(steps, ((0, 0), (1, 0)))
    shift = lambda x: x + np.ones_like(x) * after.reshape(after.shape + (1,) * (x.ndim - 2))
    return batch._replace(observation=jax.tree.map(shift, batch.observation))
