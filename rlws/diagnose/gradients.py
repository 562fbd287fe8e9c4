"""Checks of a loss by its gradient with respect to what networks say, on experience that is known.

Every step is an episode of its own, so what it is worth is its reward, and whoever learns from it
can be told what to make of that.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.critics import REPORTED, check_critics
from rlws.diagnose.instruments import Instrument, Numbers
from rlws.diagnose.subject import Subject
from rlws.settings import SettingError, change
from rlws.tracking.stderr import line_of

# What advantages are standardised by is of the others: without, each step can be looked at alone.
SETTINGS = {"normalise_advantages": False, "epochs": 2, "minibatches": 2}
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
CREDIT = Question(
    "learner: credit",
    "more reward makes the action it came of likelier",
    "likelier",
    "minimise -log_prob(action) * advantage of the same step; nothing is clipped where the policy "
    "is the one that acted",
)
ON_POLICY = Question(
    "learner: on-policy",
    "what an action is worth does not depend on how likely it was",
    "the same advantage",
    "where the policy is the one that acted, ratios are 1: exp(log_prob - recorded log_prob), and "
    "no gradient flows through what only weighs",
)
RATIO = Question(
    "learner: ratio",
    "by the ratio to who acted, steps count for more or less, but what goes the wrong way always",
    "as of clipped ratios",
    "the ratio is exp(log_prob - recorded log_prob); take the minimum of clipped and unclipped",
)
VALUE = Question(
    "learner: value",
    "`value` says of each observation what networks say of it",
    "[T + 1], within what they say",
    "reduce over critics or actions, not over steps",
)
NEAR = 0.99  # a ratio that rounding does not put beyond 1
RATIOS = (0.5, 2.0)
FAR = 20.0  # a ratio that nobody should learn from in full who clips it
CLIPS = ("clip", "max_ratio")  # settings that say so
UP = 0.25
LITTLE = 0.05


def check_gradients_of_outputs(subject: Subject) -> Iterator[Check]:
    """Yields what a learner makes of known outputs of its networks; nothing where it cannot be."""
    instrument = _instrument(subject)
    if instrument is None:
        yield VALUES.skip("its networks cannot be told what to say")
        return
    try:
        yield from _checks(subject, instrument)
    except Exception as error:  # outputs of a kind that is not known here: no word about the agent
        yield VALUES.skip(f"what its networks say is not known here: {line_of(error)}")


def _checks(subject: Subject, instrument: Instrument) -> Iterator[Check]:
    tables, fields = _known(instrument)
    loss = locate(instrument.learner, "loss")
    try:
        found = instrument.measure(tables, _slope(instrument, 0.0), fields, {})
    except Exception as error:  # parameters that must not have another entry, for one
        yield VALUES.skip(f"its networks cannot be told what to say: {line_of(error)}")
        return
    yield from _check_values(instrument, tables, fields, found, loss)
    yield from _check_ends(instrument, tables, fields, loss, subject.discount)
    yield from _check_policy(instrument, tables, fields, found, loss)
    yield from _check_value(instrument, tables)
    if _critics(instrument) and "network.value" not in tables:  # of actions, too
        yield from check_critics(subject, instrument, tables, fields)


def _instrument(subject: Subject) -> Instrument | None:
    """Returns the learner of a subject, its networks told; None where they do not listen."""
    names = {field.name for field in dataclasses.fields(subject.config)}
    settings = {name: value for name, value in SETTINGS.items() if name in names}
    real = lambda batch: (batch.weight > 0).sum()
    learner, state = subject.agent.learner, subject.state.learner
    batch = max(subject.batches, key=real)
    batch = jax.device_get(learner.prepare(state, jax.tree.map(jax.numpy.asarray, batch))[0])
    for other in (change(subject.config, settings), subject.config):
        agent = subject.agent if other == subject.config else other.make(subject.spec)
        learner = dataclasses.replace(agent.learner, terms=())
        instrument = Instrument(learner, state._replace(terms=()), batch)
        try:
            if instrument.sizes:
                return instrument
        except SettingError:  # batches are not divided so
            continue
        except Exception:  # observations that are nested, or parameters of another kind
            return None
    return None


def _known(instrument: Instrument) -> tuple[Numbers, dict[str, Any]]:
    """Returns what networks say of each observation, and what the steps of the batch are."""
    rng, batch = np.random.default_rng(0), instrument.batch
    draw = lambda shape: rng.normal(size=(instrument.count, *shape)).astype(np.float32)
    size = lambda name: np.float32(1.0 if name.endswith("logits") else 0.3)
    # Values are above 0 on the whole: the mean of several is not their sum.
    begin = lambda name: np.float32(0.5 * _is_value(name))
    tables = {
        name: begin(name) + size(name) * draw(shape) for name, shape in instrument.sizes.items()
    }
    shape = batch.reward.shape
    said = [_said(instrument, name, x) for name, x in tables.items() if _is_value(name)]
    value = np.mean([x.mean(axis=0) for x in said], axis=0) if said else np.zeros(shape)
    reward = np.float32(value + rng.uniform(-1.0, 0.3, shape))
    fields = {
        "reward": reward,
        "discount": np.zeros(shape, np.float32),
        "last": np.ones(shape, bool),
        "first": np.ones_like(batch.first, bool),
    }
    return tables, fields | _acted(instrument, tables)


def _acted(instrument: Instrument, tables: Numbers, ratio: float = 1.0) -> dict[str, Any]:
    """Returns the log-probabilities that were recorded, where they were, of policies this far."""
    extras = instrument.batch.extras
    logits = _logits(tables)
    if logits is None or not isinstance(extras, dict) or "log_prob" not in extras:
        return {}
    log_prob = np.log(_taken(instrument, _softmax(logits)))
    return {"extras": {**extras, "log_prob": np.float32(log_prob - np.log(ratio))}}


def _check_values(instrument, tables, fields, found, loss):
    probes, _, metrics = found
    real = np.asarray(instrument.batch.weight) > 0
    wrong, fine, said = [], [], []
    more = fields | {"reward": fields["reward"] + np.float32(UP)}
    other = instrument.measure(tables, _slope(instrument, 0.0), more, {})[0]
    names = [*filter(_is_value, tables)]
    # Where some values are drawn to rewards, others may be drawn to what those say instead.
    rewarded = [name for name in names if not np.array_equal(probes[name], other[name])]
    for name in rewarded or names:
        values = _said(instrument, name, tables[name])
        pulls = _said(instrument, name, probes[name])
        if not pulls.any():  # another output is what is learned
            continue
        for value, pull in zip(values, pulls, strict=True):
            off, pull = (fields["reward"] - value)[real], pull[real]
            alike = (off @ pull) / max(np.linalg.norm(off) * np.linalg.norm(pull), 1e-12)
            wrong.append(alike)
            fine.append(alike > 0.97 or _rises(off, pull))
        said.append(values)
    if not wrong:
        yield VALUES.skip("no value is told")
        return
    yield VALUES.answer(all(fine), f"a correlation of {min(wrong):.2f}", loss)
    if not all(fine):
        return
    value = np.concatenate(said)
    if "explained_variance" in metrics:
        reward, mean = fields["reward"][real], value.mean(axis=0)[real]
        expected = max(1 - np.var(reward - mean) / np.var(reward), -1.0)
        yield _reported("explained_variance", expected, metrics, loss, 0.05)
    if "q" in metrics:
        low, high = value.min(axis=0)[real].mean(), value.max(axis=0)[real].mean()
        got = float(metrics["q"])
        expected = float(np.clip(got, low, high))
        yield _reported("q", expected, metrics, loss, 0.02)


def _rises(off: np.ndarray, pull: np.ndarray) -> bool:
    """Returns whether errors pull the right way, larger ones no less, as Huber's or expectiles."""
    pull = np.where(np.abs(pull) < 1e-4 * np.abs(pull).max(), 0, pull)[np.argsort(off)]
    back = np.diff(pull).clip(max=0).sum() > -1e-3 * np.ptp(pull)
    return bool(back and (pull * np.sort(off) >= 0).all() and np.mean(pull != 0) > 0.2)


def _check_ends(instrument, tables, fields, loss, gamma):
    """Yields what values make of what is beyond an end, where each step is cut after it."""
    name, real = "network.value", np.asarray(instrument.batch.weight) > 0
    row = real.sum(axis=1).argmax()
    steps = np.flatnonzero(real[row])
    if name not in tables or len(steps) < 4:
        return
    at = steps[len(steps) // 2 - 1]
    here, following = instrument.index()[row, at], instrument.index(final=True)[row, at]
    mean = tables[name].reshape(instrument.count, -1).mean(axis=-1)
    # Where it is right, and by little: larger errors may count for less.
    follows = (gamma or 1.0) * mean[instrument.index(final=True)]
    known = np.float32(mean[instrument.index()] - follows)
    fields = fields | {"discount": np.ones_like(fields["discount"]), "reward": known}

    def pull(reward: Any = 0.0, when: Any = at, value: float = 0.0):
        """Returns how values are drawn, where a reward, or the value after the step, is more."""
        more, table = fields["reward"].copy(), tables[name].copy()
        more[row, when] += np.float32(reward)
        table[following] += np.float32(value)
        found = instrument.measure(
            {**tables, name: table}, _slope(instrument, 0.0), fields | {"reward": more}, {}
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
    fine = abs(leaks) < 0.02 and (gamma is None or abs(follows - gamma) < 0.05)
    yield ENDS.answer(fine, f"{leaks:.2g}, and {follows:.2f}", loss)


def _check_policy(instrument, tables, fields, found, loss):
    logits = _logits(tables)
    if logits is None:
        return
    real = np.asarray(instrument.batch.weight) > 0
    measure = lambda tables, **other: instrument.measure(
        tables, _slope(instrument, 0.0), fields | other, {}
    )
    pull = lambda tables, found: (
        _taken(instrument, _of_policy(found[0]))
        / (1 - _taken(instrument, _softmax(_of_policy(tables))))
    )
    before = pull(tables, found)
    better = np.zeros(real.shape, bool)  # of one trajectory: others may be compared with it
    longest = real.sum(axis=1).argmax()
    better[longest, ::3] = real[longest, ::3]
    other = measure(tables, reward=np.float32(fields["reward"] + UP * better))
    if np.array_equal(_of_policy(found[0]), _of_policy(other[0])):
        yield CREDIT.skip("rewards reach the policy through values only")
        return
    more = (pull(tables, other) - before)[better]
    most = np.abs(more).max()
    # Who learns from the better half of steps only is not wrong; who learns against any is.
    fine = most > 0 and more.min() > -1e-4 * most and np.mean(more > 0) > 0.2
    yield CREDIT.answer(bool(fine), f"likelier in {np.mean(more > 0):.0%} of steps", loss)
    rng = np.random.default_rng(1)
    shift = lambda x: (x + rng.normal(size=x.shape)).astype(np.float32)
    shifted = {name: shift(x) if name.endswith("logits") else x for name, x in tables.items()}
    elsewhere = measure(shifted, **_acted(instrument, shifted))
    apart = np.mean(np.abs(pull(shifted, elsewhere) - before)[real])
    apart /= max(np.mean(np.abs(before)[real]), 1e-12)
    yield ON_POLICY.answer(apart < 0.2, f"{apart:.0%} apart", loss)
    metrics = found[2]
    if "entropy" in metrics:
        yield _check_reported_entropy(
            instrument, [(tables, metrics), (shifted, elsewhere[2])], real, loss
        )
    if not _acted(instrument, tables):
        return
    ratios = NEAR, *RATIOS, FAR
    by_ratio = {x: measure(tables, **_acted(instrument, tables, x)) for x in ratios}
    pulls = {x: pull(tables, found)[real] for x, found in by_ratio.items()}
    yield _check_ratio(instrument, before[real], pulls, loss)
    for name in (x for x in metrics if "kl" in x or "clip" in x):
        if np.ptp([float(found[2][name]) for found in by_ratio.values()]) == 0:
            continue  # a setting, such as what divergence costs
        yield _reported(name, 0.0, by_ratio[NEAR][2], loss, 0.02)
        for x in RATIOS:
            most = 1.0 if "clip" in name else abs(np.log(x)) + 0.01
            got = abs(float(by_ratio[x][2][name]))
            if got > most:
                yield _reported(name, most, by_ratio[x][2], loss, 0.0)


def _check_ratio(instrument, once, pulls, loss):
    good, bad = once > 0, once < 0
    share = lambda x, where: float(np.median(pulls[x][where] / once[where])) if where.any() else 1.0
    low, high, far = share(0.5, good), share(2.0, bad), share(FAR, good)
    config = getattr(instrument.learner, "config", None)
    clips = any(getattr(config, name, None) is not None for name in CLIPS)
    used = not all(np.allclose(x, once, rtol=1e-3, atol=1e-7) for x in pulls.values())
    if not used and not clips:
        return RATIO.skip("recorded log-probabilities are not used")
    both = good.any() and bad.any()  # at a ratio of 1 nothing is clipped
    fine = used and both and low > 0.05 and high > 0.75 and (far < 2.5 or not clips)
    got = f"{low:.2g} of a good step at 0.5, {high:.2g} of a bad one at 2, {far:.2g} of a good one"
    got = f"{got} at {FAR:g}" if used else "no ratio counts"
    one_kind = "at a ratio of 1 only good, or only bad, steps count"
    return RATIO.answer(bool(fine), got if both else one_kind, loss)


def _check_reported_entropy(instrument, pairs, real, loss):
    """Returns whether entropy is reported, be it of steps or of whole trajectories."""
    index = instrument.index()
    steps = real.sum() / len(real)
    expected, got = [], []
    for tables, metrics in pairs:
        p = _softmax(_of_policy(tables))[index]
        expected.append(-(p * np.log(p)).sum(axis=-1)[real].mean())
        got.append(float(metrics["entropy"]))
    fine = any(np.allclose(got, np.multiply(x, expected), rtol=0.02) for x in (1.0, steps))
    text = " and ".join(f"entropy {x:.3g}" for x in got)
    return REPORTED.answer(fine, text, loss, " and ".join(f"{x:.3g}" for x in expected))


def _check_value(instrument, tables):
    """Yields whether values are of each observation, and between what networks say of it."""
    where = locate(instrument.learner, "value")
    said = [x.reshape(len(x), -1) for name, x in tables.items() if _is_value(name)]
    if not said:
        return
    shape = instrument.batch.first.shape
    try:
        value = instrument.values(tables, _slope(instrument, 0.0))
    except Exception:  # it looks at more than what is told
        return
    if value is None or value.dtype == object:
        return
    if value.shape != shape:
        yield VALUE.answer(False, f"{list(value.shape[1:])} of T + 1 = {shape[1]}", where)
        return
    low, high = (f(np.concatenate(said, axis=1), axis=1).reshape(shape) for f in (np.min, np.max))
    off = ((value < low - 1e-4) | (value > high + 1e-4)).mean()
    yield VALUE.answer(not off, f"others in {off:.0%}", where)


def _reported(name, expected, metrics, loss, tolerance):
    got = float(metrics[name])
    fine = abs(got - expected) <= tolerance
    return REPORTED.answer(fine, f"{name} {got:.3g}", loss, f"{name} {expected:.3g}")


def _slope(instrument: Instrument, slope: Any) -> np.ndarray:
    """Returns the slope of each critic in the action."""
    return np.full(max(_critics(instrument), 1), slope, np.float32)


def _critics(instrument: Instrument) -> int:
    shapes = [x for name, x in instrument.sizes.items() if name.endswith(".value")]
    return max((int(np.prod(x)) for x in shapes), default=0)


def _said(instrument: Instrument, name: str, table: np.ndarray) -> np.ndarray:
    """Returns what is said of each step's action, of each critic: [critics, B, T]."""
    if name.endswith(".q"):  # of each action, and maybe of several critics
        several = table.reshape(*table.shape[:2], -1)
        return np.stack([_taken(instrument, x) for x in np.moveaxis(several, -1, 0)])
    here = table[instrument.index()]
    return np.moveaxis(here.reshape(*here.shape[:2], -1), -1, 0)


def _taken(instrument: Instrument, table: np.ndarray) -> np.ndarray:
    """Returns the entries [B, T] of a table [count, A] that belong to the actions taken."""
    action = np.asarray(instrument.batch.action)
    return np.take_along_axis(table[instrument.index()], action[..., None], axis=-1)[..., 0]


def _is_value(name: str) -> bool:
    return name.endswith((".value", ".q"))


def _logits(tables: Numbers) -> np.ndarray | None:
    return next((x for name, x in tables.items() if name.endswith(".logits")), None)


def _of_policy(probes: Numbers) -> np.ndarray:
    found = _logits(probes)
    assert found is not None
    return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
