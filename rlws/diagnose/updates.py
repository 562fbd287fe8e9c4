"""Checks of what updates make of the state of a learner, one or many of them."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rlws.diagnose import compilation
from rlws.diagnose.check import ANOTHER, SAME, Check, Question, is_real, locate
from rlws.diagnose.subject import Subject
from rlws.diagnose.targets import check_gradients
from rlws.diagnose.toy import discount_name
from rlws.networks.prior import PRIOR

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
PACE = Question(
    "learner: pace",
    "targets stay, or move towards the parameters as far as the settings say",
    "target_rate, or a copy",
    "extra + target_rate * (params - extra), params being the new ones",
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
UPDATES = 45  # enough for most target networks of a small agent to move
MANY = 2_000  # more, where one has not
LOWER = 0.5
RATES = "target_rate", "tau", "target_update_rate"  # names of the setting
FURTHER = 10.0  # than any value


def check_updates(subject: Subject) -> Iterator[Check]:
    """Yields whether updates stay finite, move all that must move, and go where settings say."""
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
    where, settings = locate(subject.agent.learner, "update"), vars(subject.config)
    rate = next((x for x in (settings.get(name) for name in RATES) if x), None)
    if not _copies(state):
        return
    # Far from the parameters: each step towards them can be told from any other.
    far = jax.tree.map(lambda x: x + np.float32(1) if is_real(x) else x, state.extra)
    state, wrong, shares = state._replace(extra=far), False, list[float]()
    for i in range(3):
        before = _copies(state)
        state, _ = subject.learn(state, subject.batches[-1], jax.random.key(i))
        moved = _moved(before, state)
        moves = [
            (np.allclose(y, x, atol=1e-4), np.allclose(y, x + (rate or 1) * (p - x), atol=1e-4))
            for x, y, p in moved
        ]
        wrong |= not any(map(all, zip(*moves, strict=True)))  # all stay, or all go as far
        shares += [np.sum((y - x) * (p - x)) / np.sum((p - x) ** 2) for x, y, p in moved]
    if rate or settings.get("target_period"):
        yield PACE.holds(not wrong, "another way, or another pace", where)
        return
    # Whatever the setting is called: what is to move a little must not stay a little.
    near = lambda x: np.allclose(shares, x, atol=1e-3)
    rates = {k: x for k, x in settings.items() if isinstance(x, float) and 0 < x < 1}
    if not any(map(near, rates.values())):
        for name, x in rates.items():
            if x < 0.5 and near(1 - x):
                yield PACE.answer(False, f"{1 - x:.3g} of the way", where, f"{name}: {x:g}")


def _moved(before, state):
    """Returns what each array of target networks was, is, and moves to."""
    pairs = zip(before, _copies(state), strict=True)
    trees = ((old, new, params) for (old, _), (new, params) in pairs)
    return [leaf for x in trees for leaf in zip(*map(jax.tree.leaves, x), strict=True)]


def _check_priority(subject, state):
    """Yields whether priorities, where there are any, grow with errors, and weights count."""
    batch, key = subject.batches[-1], jax.random.key(0)
    told = lambda state, reward: subject.learn(state, batch._replace(reward=reward), key)[1].get(
        "priority"
    )
    if told(state, batch.reward) is None:
        return
    # The loss of a histogram tells what is off only where it is sure of something.
    sure, real = _later(subject, state), np.float32(batch.weight > 0)
    now, *more = (
        float(np.mean(told(sure, batch.reward + x * real))) for x in (0.0, FURTHER, -FURTHER)
    )
    got = f"{now:.3g}, then {more[0]:.3g} and {more[1]:.3g}"
    where = locate(subject.agent.learner, "loss")
    yield PRIORITY.holds(min(more) > now, got, where)
    half = batch.weight.copy()
    half[: len(half) // 2] *= np.float32(0.5)
    found = subject.loss_and_gradient(batch), subject.loss_and_gradient(batch._replace(weight=half))
    yield WEIGHTS.holds(not np.allclose(*found, rtol=1e-5), SAME, where)


def _copies(state):
    """Returns what in `extra` looks like the parameters, or an entry of them, each with those."""
    parts = [state.params, *(state.params.values() if isinstance(state.params, dict) else ())]
    looks = lambda x: (jax.tree.structure(x), *map(np.shape, jax.tree.leaves(x)))
    by_looks = {looks(x): x for x in reversed(parts) if not jax.tree_util.all_leaves([x])}
    known = lambda x: looks(x) in by_looks
    return [
        (x, by_looks[looks(x)]) for x in jax.tree.leaves(state.extra, is_leaf=known) if known(x)
    ]
