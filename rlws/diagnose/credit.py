"""Checks of what a step brings the ones before it, where no episode is cut."""

from typing import Any

import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.actors import LOG_PROBS
from rlws.diagnose.check import Question

TRACES = Question(
    "learner: traces",
    "what comes a step later counts for less, by the discount",
    "at most gamma",
    "returns and traces go back by discount * lambda, not by lambda",
)
AHEAD = Question(
    "learner: credit ahead",
    "what the next step brings, and its value with it, counts for an action by the discount",
    "gamma",
    "an advantage is reward + discount * V of the next observation - V of the same step, and what "
    "traces add of later ones",
)
WEIGHED = Question(
    "learner: weighed values",
    "where values follow ratios, what would never have been done draws none",
    "no pull",
    "each step's error is weighed by its own ratio, before traces add those of later ones",
)
ITSELF = Question(
    "learner: own value",
    "a target does not follow what is said of its own observation",
    "-1 for 1",
    "a target is of the reward and of what follows: bootstrap from the next observation, add the "
    "value to an advantage, and let corrections be of the step after",
)
CORRECTIONS = Question(
    "learner: corrections",
    "how likely an action was does not change what it is worth itself",
    "the same",
    "a value of an action takes it as given: ratios of step t + 1 and later, not that of step t",
)
TWICE = 2.0  # as likely as for sure, which halves a ratio that may be cut at 1
MORE = 0.05  # of a reward
LITTLE = 0.005
NEVER = 1e-3  # a ratio
BEST = 0.1  # how much better the action is that was taken


def check_traces(instrument, fields, loss, gamma):
    """Yields how much of what a step brings its value is brought by the next one, at this gamma.

    All values are told to be 0, and no episode is cut: so it is gamma times what traces let pass.
    """
    name, (row, steps, at) = instrument.state_value, outputs.middle(instrument)
    if not name or len(steps) < 4:
        return
    tables = {
        key: np.zeros((instrument.count, *x), np.float32) for key, x in instrument.sizes.items()
    }
    fields = outputs.uncut(fields)

    def pull(when: int, more: float):
        reward = np.zeros_like(fields["reward"])
        reward[row, when] = more
        found = instrument.measure(tables, instrument.flat, fields | {"reward": reward}, {})
        here = found[0][name].reshape(instrument.count, -1).mean(axis=-1)
        return float(here[instrument.index()[row, at]])

    once = pull(at, 0.0)
    own, later = pull(at, MORE) - once, pull(at + 1, MORE) - once
    if own:
        yield TRACES.answer(later / own < gamma + 0.02, f"{later / own:.2f} of {gamma}", loss)


def check_credit(instrument, known, fields, loss, gamma):
    """Yields how much what comes a step later counts for an action, at this gamma.

    Values are told to be 0, and no episode is cut.
    """
    name, (row, steps, at) = instrument.state_value, outputs.middle(instrument)
    policy = next((x for x in instrument.sizes if x.endswith(".logits")), None)
    if not name or policy is None or len(steps) < 4:
        return
    tables = {key: 0 * x if outputs.is_value(key) else x for key, x in known.items()}
    fields = outputs.uncut(fields)
    here, following = instrument.index()[row, at], instrument.index(final=True)[row, at]

    def measure(step: int = at, reward: float = 0.0, value: float = 0.0, **other: Any) -> Any:
        more, table = fields["reward"].copy(), tables[name].copy()
        more[row, step] += np.float32(reward)
        table[following] += np.float32(value)
        changed = fields | {"reward": more, **other}
        return instrument.measure({**tables, name: table}, instrument.flat, changed, {})[0]

    once = measure()
    own = measure(at, LITTLE)[policy] - once[policy]
    later = measure(at + 1, LITTLE, LITTLE)[policy] - once[policy]
    action = np.asarray(instrument.batch.action)[row, at]
    others = np.delete(np.arange(instrument.count).reshape(instrument.batch.first.shape), row, 0)
    size = abs(own[here, action])
    if not size or np.abs(own[others]).max(initial=0.0) > 1e-3 * size:
        yield AHEAD.skip("rewards do not reach the policy, or those of all trajectories at once")
    else:
        got = float(later[here, action] / own[here, action])
        yield AHEAD.answer(abs(got - gamma) < 0.05, f"{got:.2f} of {gamma}", loss)
    if not (never := outputs.acted(instrument, tables, NEVER)):
        return
    all_, none = once[name], measure(**never)[name]
    if np.allclose(all_, none, rtol=1e-3, atol=1e-3 * np.abs(all_).max()):
        return
    share = float(np.linalg.norm(none) / np.linalg.norm(all_))
    yield WEIGHED.answer(share < 0.05, f"{share:.0%} of the pull", loss)


def check_own(instrument, known, fields, loss):
    """Yields whether targets depend on what they must not: their own value, and their own ratio.

    No episode is cut, actions are the best, and were taken for sure.
    """
    row, steps, at = outputs.middle(instrument)
    names = [x for x in known if x.endswith(".q") or x == instrument.state_value]
    if not names or not len(steps):
        return
    tables, fields = dict(known), outputs.uncut(fields)
    for name in (x for x in names if x.endswith(".q")):
        tables[name] = table = known[name].copy()
        taken = np.asarray(instrument.batch.action)
        table[instrument.index(), taken] = table.max(axis=1)[instrument.index()] + BEST
    extras = fields.get("extras", instrument.batch.extras)
    chance = outputs.likelihood(extras)
    if chance and not instrument.state_value:
        sure = 0.0 if LOG_PROBS.search(chance) else 1.0
        extras = {**extras, chance: np.full_like(extras[chance], sure)}
        fields = fields | {"extras": extras}
    here = instrument.index()[row]

    def pulls(reward=0.0, value=0.0, **changed):
        more = fields["reward"].copy()
        more[row, at] += np.float32(reward)
        said = {x: tables[x].copy() for x in names}
        for table in said.values():
            table[here[at]] += np.float32(value)
        given = fields | {"reward": more, **changed}
        found = instrument.measure({**tables, **said}, instrument.flat, given, {})[0]
        return sum(outputs.said(instrument, x, found[x]).mean(axis=0)[row] for x in names)

    once = pulls()
    own = (pulls(reward=LITTLE) - once)[at]
    if not own:
        return
    by_itself = float((pulls(value=LITTLE) - once)[at] / own)
    yield ITSELF.answer(abs(by_itself + 1) < 0.05, f"{by_itself:.2f} for 1", loss)
    if chance and not instrument.state_value:
        told = extras[chance].copy()
        told[row, at] = np.log(TWICE) if LOG_PROBS.search(chance) else TWICE
        moved = np.abs(pulls(extras={**extras, chance: told}) - once)[steps]
        if moved.max() > 1e-5:
            fine = moved[steps == at] < 1e-3 * moved.max()
            yield CORRECTIONS.holds(bool(fine.all()), "another target", loss)
