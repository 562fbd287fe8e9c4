"""Checks of soft values of actions that can be counted: what a temperature makes of entropy."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.check import Check, Question
from rlws.diagnose.critics import SOFT
from rlws.diagnose.entropy import TEMPERATURE, log_temperature
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
    hot = log_temperature(params)
    if not q or said is None or not hot or gamma is None:
        return
    real = np.asarray(instrument.batch.weight) > 0
    fields = fields | {"discount": np.ones_like(fields["discount"])}
    warmer = {hot: np.float32(np.log(np.exp(params[hot]) + WARMER))}
    name = next(x for x in tables if x.endswith(".logits"))

    def measure(others=None, reward=0.0, logits=said):
        given = fields | {"reward": fields["reward"] + np.float32(reward)}
        return instrument.measure({**tables, name: logits}, instrument.flat, given, others or {})

    of = lambda found: outputs.said(instrument, q, found[0][q]).mean(axis=0)[real]
    once, warm = measure(), measure(warmer)
    by_reward = of(measure(reward=UP)) - of(once)
    if not np.all(by_reward):  # rewards do not draw values
        return
    p = outputs.softmax(said)
    entropy = -(p * np.log(p)).sum(axis=-1)[instrument.index(final=True)][real]
    more = (of(warm) - of(once)) / by_reward * UP / (gamma * WARMER)
    got = f"{more.mean():.2f} for 1"
    fine = np.allclose(more, entropy, rtol=0.1, atol=0.05)
    yield SOFT.answer(fine, got, loss, f"{entropy.mean():.2f} for 1")
    here = lambda logits: logits[instrument.index()][real]
    towards, now = here(warm[0][name] - once[0][name]), here(said)
    along = float(np.sum(towards * (now - now.mean(axis=-1, keepdims=True))))
    if towards.any():
        yield ALIKE.holds(along < 0, f"{name} further apart", loss)
    flat, sharp = (float(measure(logits=np.float32(x) * said)[1][hot]) for x in (0, SHARPER))
    if flat != sharp:
        got = "higher where actions are drawn alike" if flat > sharp else TEMPERATURE.expected
        yield TEMPERATURE.answer(sharp > flat, got, loss)
