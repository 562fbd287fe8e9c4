"""Reads what networks were told to say, and what their gradients make of it, step by step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rlws.diagnose.actors import LOG_PROBS, PROBABILITIES
from rlws.diagnose.critics import REPORTED
from rlws.diagnose.instruments import Instrument, Numbers


def acted(instrument: Instrument, tables: Numbers, ratio: float = 1.0) -> dict[str, Any]:
    """Returns the log-probabilities that were recorded, where they were, of policies this far."""
    extras = instrument.batch.extras
    said, name = logits(tables), recorded(extras)
    if said is None or not name:
        return {}
    log_prob = np.log(taken(instrument, softmax(said)))
    return {"extras": {**extras, name: np.float32(log_prob - np.log(ratio))}}


def recorded(extras: Any) -> str:
    """Returns what recorded log-probabilities are called, "" where there are none."""
    return _of_steps(extras, LOG_PROBS.search)


def likelihood(extras: Any) -> str:
    """Returns what the recorded likelihood of the action taken is called, or its log; "": none."""
    return _of_steps(extras, lambda x: LOG_PROBS.search(x) or PROBABILITIES.fullmatch(x))


def _of_steps(extras: Any, known: Callable[[str], Any]) -> str:
    """Returns the first name that is known of what is recorded as a number of each step."""
    names = extras if isinstance(extras, dict) else ()
    return next((x for x in names if known(x) and np.ndim(extras[x]) == 2), "")


def said(instrument: Instrument, name: str, table: np.ndarray) -> np.ndarray:
    """Returns what is said of each step's action, of each critic: [critics, B, T]."""
    if name.endswith(".q"):  # of each action, and maybe of several critics
        several = table.reshape(*table.shape[:2], -1)
        return np.stack([taken(instrument, x) for x in np.moveaxis(several, -1, 0)])
    here = table[instrument.index()]
    return np.moveaxis(here.reshape(*here.shape[:2], -1), -1, 0)


def taken(instrument: Instrument, table: np.ndarray) -> np.ndarray:
    """Returns the entries [B, T] of a table [count, A] that belong to the actions taken."""
    action = np.asarray(instrument.batch.action)
    return np.take_along_axis(table[instrument.index()], action[..., None], axis=-1)[..., 0]


def middle(instrument: Instrument) -> tuple[int, np.ndarray, int]:
    """Returns the longest trajectory, its steps, and one with as many before it as after it."""
    real = np.asarray(instrument.batch.weight) > 0
    row = int(real.sum(axis=1).argmax())
    steps = np.flatnonzero(real[row])
    return row, steps, int(steps[len(steps) // 2 - 1]) if len(steps) else 0


def uncut(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns fields of a batch whose trajectories are one unfinished episode each."""
    begins = np.zeros_like(fields["first"])
    begins[:, 0] = True
    goes_on = {"last": np.zeros_like(fields["last"]), "first": begins}
    return fields | goes_on | {"discount": np.ones_like(fields["discount"])}


def is_value(name: str) -> bool:
    """Returns whether an output is what critics say."""
    return name.endswith((".value", ".q"))


def logits(tables: Numbers) -> np.ndarray | None:
    """Returns those of a policy; None where there is none."""
    return next((x for name, x in tables.items() if name.endswith(".logits")), None)


def of_policy(probes: Numbers) -> np.ndarray:
    """Returns the logits of a policy that there is."""
    found = logits(probes)
    assert found is not None
    return found


def softmax(x: np.ndarray) -> np.ndarray:
    """Returns probabilities."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def reported(name, expected, metrics, loss, tolerance):
    """Returns whether a metric is what it is expected to be."""
    got = float(metrics[name])
    fine = abs(got - expected) <= tolerance
    return REPORTED.answer(fine, f"{name} {got:.3g}", loss, f"{name} {expected:.3g}")
