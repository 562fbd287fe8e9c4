"""Checks of critics of states and actions: what targets and policies make of what they say.

Where an episode is cut after each step, the target is the reward and gamma times what critics say
of the observation that follows, and of an action drawn there: what they say is known.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.entropy import log_temperature
from rlws.diagnose.instruments import Instrument, Numbers
from rlws.diagnose.subject import Subject

FOLLOWS = Question(
    "learner: following",
    "targets grow by gamma times what critics say of the observation that follows",
    "gamma",
    "critics are asked about the observation after the step, times trajectory.discount",
)
CAUTION = Question(
    "learner: caution",
    "of several critics none but the lower ones are believed",
    "not the highest",
    "take the minimum over critics, not the maximum",
)
NEXT_ACTION = Question(
    "learner: next action",
    "targets ask for actions of the policy, with noise that is 0 on average",
    "those of the policy",
    "targets ask for the policy's action after the step, not for the one taken before it; noise is "
    "clipped between -limit and limit, and actions between their bounds",
)
CLIMBS = Question(
    "learner: climbs",
    "the policy moves to where critics say more",
    "up",
    "the policy's loss is minus what critics say of its action",
)
SOFT = Question(
    "learner: soft targets",
    "the hotter, the more entropy adds to targets",
    "temperature times entropy",
    "targets are of q - temperature * log_prob of the next action",
)
REPORTED = Question(
    "learner: reported",
    "metrics say what is so",
    "as worked out",
    "the metric is of other steps, has another sign, or is a sum for a mean",
)
GAP = 3.0
HOTTER = np.float32(4.0)  # in log(temperature)


def check_critics(
    subject: Subject, instrument: Instrument, tables: Numbers, fields: dict[str, Any]
) -> Iterator[Check]:
    """Yields what is made of critics that say `tables`, on steps with `fields`."""
    name = next(x for x in tables if x.endswith(".value"))
    loss = locate(instrument.learner, "loss")
    real = np.asarray(instrument.batch.weight) > 0
    spread = 1 / np.sqrt(real.sum())  # of means of what is drawn, in its deviations
    now, then = instrument.index(), instrument.index(final=True)
    cut = fields | {"discount": np.ones_like(fields["discount"])}
    flat = instrument.flat
    many = len(flat)
    acted = np.asarray(instrument.batch.action)
    acted = acted.reshape(*real.shape, -1).sum(axis=-1)

    def pulls(table, slope=flat, others=None, fields=cut, told=tables):
        return instrument.measure({**told, name: table}, slope, fields, others or {})

    def off(found, table, slope=flat):
        """Returns by how much critics are off their targets, up to a factor, and what they say."""
        shaped = lambda x: x[now].reshape(*real.shape, -1).mean(axis=-1)
        return shaped(found[0][name]), shaped(table) + slope.mean() * acted

    table = tables[name]
    ended = pulls(table, fields=fields)
    pull, said = off(ended, table)
    error = (fields["reward"] - said)[real]
    unit = (pull[real] @ error) / (error @ error)  # of a squared error; whatever it is divided by
    if not unit or not np.allclose(
        pull[real], unit * error, rtol=0.05, atol=0.02 * np.abs(pull).max()
    ):
        yield FOLLOWS.skip("errors of critics are not squared")
        return

    def target(table, slope=flat, others=None, told=tables):
        pull, said = off(pulls(table, slope, others, told=told), table, slope)
        return said + pull / unit

    before, gamma = target(table), subject.discount
    raised = lambda amount, where: _raised(table, where, amount)
    if gamma is None:
        gamma = float(np.median((target(raised(1.0, then)) - before)[real]))
    grown = (target(raised(1.0, then)) - before)[real]
    fine = np.allclose(grown, gamma, atol=0.05)
    yield FOLLOWS.answer(fine, f"{grown.mean():.2f}", loss, f"{gamma:.2f}")
    if not fine:
        return
    if many > 1:
        # One says more than the others: whoever believes the highest believes it.
        shares = [
            (target(raised(GAP * (np.arange(many) == i), then)) - before)[real].mean()
            for i in (0, many - 1)
        ]
        share = min(shares) / (gamma * GAP)
        yield CAUTION.answer(share < 0.6, f"{share:.0%} of the highest counts", loss)
        yield _check_value(instrument, tables, name, flat)
    asked = (target(table, flat + 1.0) - before)[real] / gamma
    policy = next((x for x in tables if x.endswith((".action", ".mean"))), None)
    if policy is not None:
        wanted = tables[policy][then].reshape(*real.shape, -1).sum(axis=-1)[real]
        apart = float(np.mean(asked - np.tanh(wanted)))
        up = {**tables, policy: _raised(tables[policy], then, 1.0)}
        more = target(table, flat + 1.0, told=up) - target(table, told=up)
        follows = float(np.mean(more[real] / gamma - asked))
        fine = abs(apart) < 1.4 * spread and follows > 0.05
        got = f"{apart:+.2f} apart" if follows > 0.05 else "those of another, or of another step"
        yield NEXT_ACTION.answer(fine, got, loss)
        ups = [
            float(pulls(raised(GAP * np.array(high), now), np.float32(slope))[0][policy][now].sum())
            for high, slope in _ups(many)
        ]
        yield CLIMBS.answer(ups[0] > 0, "up" if ups[0] > 0 else "down, or nowhere", loss)
        if many > 1:
            # By half as much as all of them: of two, the mean moves it neither way.
            highest = min(ups[1:]) > 0.5 * ups[0] > 0
            got = "the highest is followed" if highest else CAUTION.expected
            yield CAUTION.answer(not highest, got, loss)
    params = instrument.start.params
    hot = log_temperature(params)
    entropy = _entropy(subject, instrument, tables)
    if entropy is None:
        return
    if hot:
        old = np.exp(params[hot])
        hotter = {hot: np.float32(params[hot] + HOTTER)}
        more = (target(table, others=hotter) - before)[real].mean()
        more /= gamma * old * (np.exp(HOTTER) - 1)
        fine = abs(more - entropy) < 1.7 * spread
        if abs(more) > 0.01 or any("entropy" in name for name in vars(subject.config)):
            yield SOFT.answer(fine, f"{more:.2f} for 1", loss, f"{entropy:.2f} for 1")
    metrics = ended[2]
    if "entropy" in metrics:
        told = float(metrics["entropy"])
        fine = abs(told - entropy) < 2.5 * spread
        yield REPORTED.answer(fine, f"entropy {told:.2f}", loss, f"entropy {entropy:.2f}")


def _ups(many):
    """Yields which critics say more, and in which direction each rises with the action.

    All rise; then only the one that says more does, and the others fall.
    """
    yield np.zeros(many), np.ones(many)
    for i in (0, many - 1):
        high = np.arange(many) == i
        yield high, np.where(high, 1.0, -1.0)


def _raised(table, where, amount):
    raised = table.copy()
    raised[where] += np.float32(amount)
    return raised


def _check_value(instrument, tables, name, flat):
    """Returns whether `value`, too, does not believe the highest critic."""
    many, highest = len(flat), []
    everywhere = np.arange(instrument.count)
    before = instrument.values(tables, flat)
    for i in (0, many - 1):
        table = _raised(tables[name], everywhere, GAP * (np.arange(many) == i))
        highest.append((instrument.values({**tables, name: table}, flat) - before).mean())
    fine = min(highest) < 0.6 * GAP
    got = CAUTION.expected if fine else "the highest is what `value` says"
    return CAUTION.answer(fine, got, locate(instrument.learner, "value"))


def _entropy(subject: Subject, instrument: Instrument, tables: Numbers) -> float | None:
    """Returns the entropy of the policy at the observations, of draws; None: it has none."""
    learner, params = instrument.learner, instrument.start.params
    seen = np.array(instrument.batch.observation).reshape(instrument.count, -1)
    seen[:, -1] = 0.0  # as networks see what has a number
    mean = next((x for name, x in tables.items() if name.endswith(".mean")), None)
    for part in (params, *(x for x in params.values() if isinstance(x, dict))):
        try:
            policy = learner.network.apply(part, seen).policy._replace(mean=mean)
            keys = jax.random.split(jax.random.key(0), 16)
            drawn = [policy.sample_and_log_prob(key)[1] for key in keys]
        except Exception:  # those of another network
            continue
        return -float(np.mean(drawn))
    return None
