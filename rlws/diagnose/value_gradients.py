"""Checks of what values are drawn to: what came of their own step, and what is beyond an end."""

from typing import Any

import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.check import Question

VALUES = Question(
    "learner: values",
    "each value is drawn to what came of its own step",
    "in proportion to how far it is off",
    "the error of a value is its target minus the value of the same step, each as often as others",
)
ENDS = Question(
    "learner: ends",
    "where an episode is cut, its last value counts, and nothing of the episode after it",
    "0, and gamma",
    "returns and traces stop where trajectory.last, at a time limit, too: trajectory.trace() is 0 "
    "there; what follows is worth trajectory.discount times the value of the last observation",
)
LOST = (
    "truncation is treated as termination: bootstrap from the last observation of an episode that "
    "is cut, times trajectory.discount"
)
OTHERS = (
    "values of actions that were not taken are drawn, too: by a penalty on them, or by the loss of "
    "something else that lacks a stop_gradient"
)
WHOLE = "the discount is ignored: multiply what follows by gamma"
TARGETS = Question(
    "learner: target networks",
    "what follows is worth more where target networks say so",
    "values are drawn to more",
    "what follows is valued by the network that learns: take its value from state.extra, and from "
    "the other at most which action is best",
)
UP = 0.25
LITTLE = 0.05
ALIKE = 0.97  # a correlation


def check_values(instrument, tables, fields, found, loss):
    """Yields whether values are drawn to the rewards of their steps, and what is said of that."""
    probes, _, metrics = found
    real = np.asarray(instrument.batch.weight) > 0
    wrong, fine, said = [], [], []
    more = fields | {"reward": fields["reward"] + np.float32(UP)}
    other = instrument.measure(tables, instrument.flat, more, {})[0]
    names = [*filter(outputs.is_value, tables)]
    # Where some values are drawn to rewards, others may be drawn to what those say instead.
    rewarded = [name for name in names if not np.array_equal(probes[name], other[name])]
    for name in rewarded or names:
        values = outputs.said(instrument, name, tables[name])
        pulls = outputs.said(instrument, name, probes[name])
        if not pulls.any():  # another output is what is learned
            continue
        for value, pull in zip(values, pulls, strict=True):
            off, pull = (fields["reward"] - value)[real], pull[real]
            alike = _correlation(off, pull)
            wrong.append(alike)
            fine.append(alike > ALIKE or _rises(off, pull))
        said.append(values)
    if not wrong:
        yield VALUES.skip("no value is told")
        return
    right = all(fine) or (
        min(wrong) > 0 and _moves_by_what_is_added(instrument, tables, fields, probes, rewarded)
    )
    answer = VALUES.answer(right, f"a correlation of {min(wrong):.2f}", loss)
    if right and not all(fine) and not _only_taken(instrument, probes, rewarded):
        answer = answer._replace(verdict="note", advice=OTHERS)
    yield answer
    if not right:
        return
    value = np.concatenate(said)
    if "explained_variance" in metrics:
        reward, mean = fields["reward"][real], value.mean(axis=0)[real]
        expected = max(1 - np.var(reward - mean) / np.var(reward), -1.0)
        yield outputs.reported("explained_variance", expected, metrics, loss, 0.05)
    if "q" in metrics:
        # Of the action taken, of the best, or of any mixture.
        here = np.stack([tables[name][instrument.index()] for name in rewarded or names])
        here = here.reshape(len(here), *real.shape, -1)
        low, high = (f(here, axis=(0, -1))[real].mean() for f in (np.min, np.max))
        got = float(metrics["q"])
        expected = float(np.clip(got, low, high))
        yield outputs.reported("q", expected, metrics, loss, 0.02)


def _only_taken(instrument, probes, names) -> bool:
    """Returns whether no values but those of actions that were taken are drawn anywhere."""
    for name in (name for name in names if name.endswith(".q")):
        pulls = np.abs(outputs.said(instrument, name, probes[name])).sum()
        if np.abs(probes[name]).sum() > 1.001 * pulls:
            return False
    return True


def _moves_by_what_is_added(instrument, tables, fields, probes, names) -> bool:
    """Returns whether errors grow with rewards and shrink with values, whatever else is in them.

    What else: a bonus for likely actions (Munchausen), which is the same where all values of an
    observation are.
    """
    rng, real = np.random.default_rng(1), np.asarray(instrument.batch.weight) > 0
    # More for all, too: what is standardised over the batch does not move by that.
    more = rng.normal(UP, UP, fields["reward"].shape).astype(np.float32)
    shift = rng.normal(0, UP, instrument.count).astype(np.float32)
    moved = {
        name: table + shift.reshape(-1, *[1] * (table.ndim - 1))
        for name, table in tables.items()
        if outputs.is_value(name)
    }
    fields = fields | {"reward": fields["reward"] + more}
    after = instrument.measure({**tables, **moved}, instrument.flat, fields, {})[0]
    off = (more - shift[instrument.index()])[real]
    pulls = [
        pull[real]
        for name in names
        for pull in outputs.said(instrument, name, after[name] - probes[name])
    ]
    return bool(pulls) and all(_correlation(off, pull) > ALIKE for pull in pulls)


def _correlation(off: np.ndarray, pull: np.ndarray) -> float:
    """Returns how far one is a multiple of the other, above 0: 1 is wholly."""
    return float(off @ pull / max(np.linalg.norm(off) * np.linalg.norm(pull), 1e-12))


def _rises(off: np.ndarray, pull: np.ndarray) -> bool:
    """Returns whether errors pull the right way, larger ones no less, as Huber's or expectiles."""
    pull = np.where(np.abs(pull) < 1e-4 * np.abs(pull).max(), 0, pull)[np.argsort(off)]
    back = np.diff(pull).clip(max=0).sum() > -1e-3 * np.ptp(pull)
    return bool(back and (pull * np.sort(off) >= 0).all() and np.mean(pull != 0) > 0.2)


def check_ends(instrument, tables, fields, loss, gamma):
    """Yields what values make of what is beyond an end, where each step is cut after it."""
    name, (row, steps, at) = instrument.state_value, outputs.middle(instrument)
    if not name or len(steps) < 4:
        return
    here, following = instrument.index()[row, at], instrument.index(final=True)[row, at]
    mean = tables[name].reshape(instrument.count, -1).mean(axis=-1)
    # Where it is right, and by little: larger errors may count for less.
    then = (gamma or 1.0) * mean[instrument.index(final=True)]
    known = np.float32(mean[instrument.index()] - then)
    fields = fields | {"discount": np.ones_like(fields["discount"]), "reward": known}

    def pull(reward: Any = 0.0, when: Any = at, value: float = 0.0):
        """Returns how values are drawn, where a reward, or the value after the step, is more."""
        more, table = fields["reward"].copy(), tables[name].copy()
        more[row, when] += np.float32(reward)
        table[following] += np.float32(value)
        found = instrument.measure(
            {**tables, name: table}, instrument.flat, fields | {"reward": more}, {}
        )
        return found[0][name].reshape(instrument.count, -1).mean(axis=-1)

    once = pull()
    by_reward = pull(LITTLE) - once
    beyond = pull(LITTLE, steps[steps > at]) - once
    others = np.delete(np.arange(instrument.count).reshape(instrument.batch.first.shape), row, 0)
    if not by_reward[here] or not np.allclose(beyond[others], 0, atol=1e-3 * abs(by_reward[here])):
        yield ENDS.skip("values of one trajectory are drawn to what others come to")
        return
    leaks = float(beyond[here] / by_reward[here])
    follows = float((pull(value=LITTLE) - once)[here] / by_reward[here])
    stops = abs(leaks) < 0.02
    fine = stops and (gamma is None or abs(follows - gamma) < 0.05)
    found = ENDS.answer(fine, f"{leaks:.2g}, and {follows:.2f}", loss)
    if stops and abs(follows) < 0.05:
        found = found._replace(advice=LOST)
    elif stops and abs(follows - 1.0) < 0.02:
        found = found._replace(advice=WHOLE)
    yield found


def check_target_networks(instrument, tables, fields, loss):
    """Yields whether what follows is worth what target networks say, where there are some."""
    names = [
        x
        for x in tables
        if x.endswith(".q") or (outputs.is_value(x) and x in instrument.of_actions)
    ]
    if not names or not instrument.has_targets:
        return
    fields = fields | {"discount": np.ones_like(fields["discount"])}
    once, more = (instrument.measure(tables, instrument.flat, fields, {}, x)[0] for x in (0.0, UP))
    if not any(once[name].any() for name in names):  # another output is what is learned
        return
    values = filter(outputs.is_value, tables)
    changes = any(not np.allclose(once[x], more[x], atol=1e-6) for x in values)
    yield TARGETS.holds(changes, "the same", loss)
