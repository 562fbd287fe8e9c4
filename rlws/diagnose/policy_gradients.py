"""Checks of what makes an action likelier: rewards, ratios to who acted, and reported entropy."""

import jax
import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.check import Question, is_real
from rlws.diagnose.critics import REPORTED

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
DIVERGENCE = Question(
    "learner: divergence",
    "what costs divergence from who acted makes it smaller, where no action is better",
    "smaller, or the same",
    "its sign is wrong: add cost * divergence to what is minimised",
)
NEAR = 0.99  # a ratio that rounding does not put beyond 1
RATIOS = (0.5, 2.0)
FAR = 20.0  # a ratio that nobody should learn from in full who clips it
UP = 0.25


def check_policy(instrument, tables, fields, found, loss):
    """Yields what makes actions likelier, and what is said of policies."""
    logits = outputs.logits(tables)
    if logits is None:
        return
    real = np.asarray(instrument.batch.weight) > 0
    measure = lambda tables, **other: instrument.measure(
        tables, instrument.flat, fields | other, {}
    )
    pull = lambda tables, found: (
        outputs.taken(instrument, outputs.of_policy(found[0]))
        / (1 - outputs.taken(instrument, outputs.softmax(outputs.of_policy(tables))))
    )
    before = pull(tables, found)
    better = np.zeros(real.shape, bool)  # of one trajectory: others may be compared with it
    longest = real.sum(axis=1).argmax()
    better[longest, ::3] = real[longest, ::3]
    other = measure(tables, reward=np.float32(fields["reward"] + UP * better))
    if np.array_equal(outputs.of_policy(found[0]), outputs.of_policy(other[0])):
        if not any(map(outputs.is_value, tables)):
            yield CREDIT.answer(False, "a reward changes nothing for its own action", loss)
            return
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
    elsewhere = measure(shifted, **outputs.acted(instrument, shifted))
    apart = np.mean(np.abs(pull(shifted, elsewhere) - before)[real])
    apart /= max(np.mean(np.abs(before)[real]), 1e-12)
    if apart >= 0.2 and (name := _weighs(instrument, tables, measure, found)):
        yield ON_POLICY.skip(f"{name}, which actors record, counts; call it log_prob to be asked")
    else:
        yield ON_POLICY.answer(apart < 0.2, f"{apart:.0%} apart", loss)
    metrics = found[2]
    if "entropy" in metrics:
        yield _check_reported_entropy(
            instrument, [(tables, metrics), (shifted, elsewhere[2])], real, loss
        )
    if not outputs.acted(instrument, tables):
        return
    ratios = NEAR, *RATIOS, FAR
    by_ratio = {x: measure(tables, **outputs.acted(instrument, tables, x)) for x in ratios}
    pulls = {x: pull(tables, found)[real] for x, found in by_ratio.items()}
    yield _check_ratio(instrument, before[real], pulls, loss)
    yield from _check_divergence(instrument, shifted, measure, loss)
    for name in (x for x in metrics if "kl" in x or "clip" in x):
        if np.ptp([float(found[2][name]) for found in by_ratio.values()]) == 0:
            continue  # a setting, such as what divergence costs
        yield outputs.reported(name, 0.0, by_ratio[NEAR][2], loss, 0.02)
        for x in RATIOS:
            most = 1.0 if "clip" in name else abs(np.log(x)) + 0.01
            got = abs(float(by_ratio[x][2][name]))
            if got > most:
                yield outputs.reported(name, most, by_ratio[x][2], loss, 0.0)


def _weighs(instrument, tables, measure, found) -> str:
    """Returns what actors record, other than log-probabilities of actions, and learners use."""
    extras = instrument.batch.extras
    for name, x in extras.items() if isinstance(extras, dict) else ():
        if name == outputs.recorded(extras) or not jax.tree.all(jax.tree.map(is_real, x)):
            continue
        changed = jax.tree.map(lambda x: np.float32(0.9 * x + 0.05), x)
        other = measure(tables, **{"extras": {**extras, name: changed}})
        if not np.array_equal(outputs.of_policy(found[0]), outputs.of_policy(other[0])):
            return name
    return ""


def _check_divergence(instrument, tables, measure, loss):
    """Yields whether a divergence that is reported gets smaller where nothing else counts.

    Of a policy that is none from one that took all actions alike; a bonus for entropy goes the same
    way. There is nothing to be said where it does not get into the loss.
    """
    nothing = {name: 0 * x if outputs.is_value(name) else x for name, x in tables.items()}
    alike = {name: 0 * x if name.endswith("logits") else x for name, x in tables.items()}
    fields = {"reward": np.zeros_like(instrument.batch.reward), **outputs.acted(instrument, alike)}
    gradient, _, metrics = measure(nothing, **fields)
    push = outputs.of_policy(gradient)
    names = [name for name in metrics if "kl" in name.split("_") and float(metrics[name]) > 0]
    if not names or not np.abs(push).max() > 1e-7:
        return
    step = 0.1 / np.abs(push).max()
    moved = {name: x + step * push if name.endswith("logits") else x for name, x in nothing.items()}
    after = measure(moved, **fields)[2]
    for name in names:
        was, is_ = float(metrics[name]), float(after[name])
        yield DIVERGENCE.answer(is_ <= was, f"{name} from {was:.4g} to {is_:.4g}", loss)


def _check_ratio(instrument, once, pulls, loss):
    good, bad = once > 0, once < 0
    share = lambda x, where: float(np.median(pulls[x][where] / once[where])) if where.any() else 1.0
    low, high, far = share(0.5, good), share(2.0, bad), share(FAR, good)
    config = getattr(instrument.learner, "config", None)
    says = lambda name: getattr(config, name, None) is not None
    clips = says("max_ratio") or (says("clip") and says("epochs"))  # alone it may be a gradient's
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
        p = outputs.softmax(outputs.of_policy(tables))[index]
        expected.append(-(p * np.log(p)).sum(axis=-1)[real].mean())
        got.append(float(metrics["entropy"]))
    fine = any(np.allclose(got, np.multiply(x, expected), rtol=0.02) for x in (1.0, steps))
    text = " and ".join(f"entropy {x:.3g}" for x in got)
    return REPORTED.answer(fine, text, loss, " and ".join(f"{x:.3g}" for x in expected))
