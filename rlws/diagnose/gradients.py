"""Checks of a loss by its gradient with respect to what networks say, on experience that is known.

Every step is an episode of its own, so what it is worth is its reward, and whoever learns from it
can be told what to make of that.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.credit import check_credit, check_own, check_traces
from rlws.diagnose.critics import check_critics
from rlws.diagnose.instruments import Instrument, Numbers
from rlws.diagnose.policy_gradients import check_policy
from rlws.diagnose.soft import check_soft_values
from rlws.diagnose.subject import Subject
from rlws.diagnose.toy import discount_name
from rlws.diagnose.value_gradients import (
    VALUES,
    check_ends,
    check_target_networks,
    check_values,
)
from rlws.settings import SettingError, change
from rlws.tracking.stderr import line_of

# What advantages are standardised by is of the others: without, each step can be looked at alone.
SETTINGS = {"normalise_advantages": False, "epochs": 2, "minibatches": 2}
LOWER = 0.3  # a discount that no lambda is below
VALUE = Question(
    "learner: value",
    "`value` says of each observation what networks say of it",
    "[T + 1], within what they say",
    "reduce over critics or actions, not over steps; a soft maximum is the temperature times "
    "logsumexp(q / temperature)",
)


def check_gradients_of_outputs(subject: Subject) -> Iterator[Check]:
    """Yields what a learner makes of known outputs of its networks; nothing where it cannot be."""
    instrument = _instrument(subject)
    if instrument is None:
        yield VALUES.skip(
            "its networks cannot be told what to say, so less was asked; outputs called policy, "
            "value or q can"
        )
        return
    try:
        yield from _checks(subject, instrument)
    except Exception as error:  # outputs of a kind that is not known here: no word about the agent
        yield VALUES.skip(f"what its networks say is not known here: {line_of(error)}")


def _checks(subject: Subject, instrument: Instrument) -> Iterator[Check]:
    tables, fields = _known(instrument)
    loss = locate(instrument.learner, "loss")
    try:
        found = instrument.measure(tables, instrument.flat, fields, {})
    except Exception as error:  # parameters that must not have another entry, for one
        yield VALUES.skip(f"its networks cannot be told what to say: {line_of(error)}")
        return
    values = [*check_values(instrument, tables, fields, found, loss)]
    yield from values
    yield from check_ends(instrument, tables, fields, loss, subject.discount)
    setting = discount_name(subject.config)
    if setting and instrument.state_value and (lower := _instrument(subject, {setting: LOWER})):
        yield from check_traces(lower, fields, loss, LOWER)
        yield from check_credit(lower, tables, fields, loss, LOWER)
    if all(check.verdict != "fail" for check in values):
        yield from check_own(instrument, tables, fields, loss)
    yield from check_target_networks(instrument, tables, fields, loss)
    yield from check_policy(instrument, tables, fields, found, loss)
    yield from check_soft_values(instrument, tables, fields, loss, subject.discount)
    yield from _check_value(instrument, tables)
    if instrument.critics and not instrument.state_value:
        yield from check_critics(subject, instrument, tables, fields)


def _instrument(subject: Subject, other: dict[str, Any] | None = None) -> Instrument | None:
    """Returns the learner of a subject, its networks told; None where they do not listen.

    `other` settings are those of another learner.
    """
    changed = change(subject.config, other or {})
    names = {field.name for field in dataclasses.fields(subject.config)}
    settings = {name: value for name, value in SETTINGS.items() if name in names}
    real = lambda batch: (batch.weight > 0).sum()
    learner, state = subject.agent.learner, subject.state.learner
    batch = max(subject.batches, key=real)
    batch = jax.device_get(learner.prepare(state, jax.tree.map(jax.numpy.asarray, batch))[0])
    for config in (change(changed, settings), changed):
        agent = subject.agent if config == subject.config else config.make(subject.spec)
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
    begin = lambda name: np.float32(0.5 * outputs.is_value(name))
    tables = {
        name: begin(name) + size(name) * draw(shape) for name, shape in instrument.sizes.items()
    }
    shape = batch.reward.shape
    said = [
        outputs.said(instrument, name, x) for name, x in tables.items() if outputs.is_value(name)
    ]
    value = np.mean([x.mean(axis=0) for x in said], axis=0) if said else np.zeros(shape)
    reward = np.float32(value + rng.uniform(-1.0, 0.3, shape))
    fields = {
        "reward": reward,
        "discount": np.zeros(shape, np.float32),
        "last": np.ones(shape, bool),
        "first": np.ones_like(batch.first, bool),
    }
    return tables, fields | outputs.acted(instrument, tables)


def _check_value(instrument, tables):
    """Yields whether values are of each observation, and between what networks say of it."""
    where = locate(instrument.learner, "value")
    said = [x.reshape(len(x), -1) for name, x in tables.items() if outputs.is_value(name)]
    if not said:
        return
    shape = instrument.batch.first.shape
    try:
        value = instrument.values(tables, instrument.flat)
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
