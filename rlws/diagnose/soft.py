"""Checks of soft values of actions that can be counted: what a temperature makes of entropy."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.check import Check, Question
from rlws.diagnose.critics import SOFT
from rlws.diagnose.entropy import TEMPERATURE, TEMPERATURES
from rlws.diagnose.instruments import Instrument, Numbers

ALIKE = Question(
    "learner: soft policy",
    "the hotter, the more alike actions become",
    "more alike",
    "the policy's loss is of temperature * log_prob - q, weighed by how likely each action is",
)
WARMER = 0.2  # more of a temperature
UP = 0.1  # more of a reward
SHARPER = 5  # times what makes one action likelier than another


def check_soft_values(
    instrument: Instrument, tables: Numbers, fields: dict[str, Any], loss: str, gamma: float | None
) -> Iterator[Check]:
    """Yields what a learned temperature does to targets and to the policy; nothing without one."""
    q = next((x for x in tables if x.endswith(".q")), "")
    said, params = outputs.logits(tables), instrument.start.params
    hot = [k for k in params if any(x in k for x in TEMPERATURES) and np.ndim(params[k]) == 0]
    if not q or said is None or not hot or "log" not in hot[0] or gamma is None:
        return
    real = np.asarray(instrument.batch.weight) > 0
    fields = fields | {"discount": np.ones_like(fields["discount"])}
    warm = {hot[0]: np.float32(np.log(np.exp(params[hot[0]]) + WARMER))}

    def pulls(others=None, reward=0.0, told=tables):
        given = fields | {"reward": fields["reward"] + np.float32(reward)}
        return instrument.measure(told, instrument.flat, given, others or {})[0]

    of = lambda found: outputs.said(instrument, q, found[q]).mean(axis=0)[real]
    once = pulls()
    by_reward = of(pulls(reward=UP)) - of(once)
    if not np.all(by_reward):  # rewards do not draw values
        return
    p = outputs.softmax(said)
    entropy = -(p * np.log(p)).sum(axis=-1)[instrument.index(final=True)][real]
    more = (of(pulls(warm)) - of(once)) / by_reward * UP / (gamma * WARMER)
    got = f"{more.mean():.2f} for 1"
    fine = np.allclose(more, entropy, rtol=0.1, atol=0.05)
    yield SOFT.answer(fine, got, loss, f"{entropy.mean():.2f} for 1")
    name = next(x for x in tables if x.endswith(".logits"))
    push = lambda others: outputs.of_policy(pulls(others))[instrument.index()][real]
    towards = push(warm) - push({})
    now = said[instrument.index()][real]
    along = float(np.sum(towards * (now - now.mean(axis=-1, keepdims=True))))
    if towards.any():
        yield ALIKE.holds(along < 0, f"{name} further apart", loss)
    flat, sharp = (
        float(
            instrument.measure({**tables, name: x * said}, instrument.flat, fields, {})[1][hot[0]]
        )
        for x in (np.float32(0), np.float32(SHARPER))
    )
    if flat != sharp:
        got = "higher where actions are drawn alike" if flat > sharp else TEMPERATURE.expected
        yield TEMPERATURE.answer(sharp > flat, got, loss)
