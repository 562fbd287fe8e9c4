"""Checks that an agent with continuous actions is the same whatever their bounds are."""

from collections.abc import Iterator

import jax
import numpy as np

from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import WIDE, Tabular, make_table

ACTIONS = Question(
    "actor: units",
    "actions fill their bounds, whatever those are",
    "as between -1 and 1",
    "of u between -1 and 1, the action is low + (u + 1) / 2 * (high - low), for whoever explores "
    "and for whoever evaluates",
)
LOSSES = Question(
    "learner: units",
    "what is learned does not depend on the units of actions",
    "as between -1 and 1",
    "networks, in actor and learner, see actions as 2 * (a - low) / (high - low) - 1, and so does "
    "a density",
)


def check_units(subject: Subject) -> Iterator[Check]:
    """Yields whether an agent acts and learns the same between other bounds.

    Notes where not: who knows the bounds otherwise may be right; a probe that fails tells.
    """
    wide = Subject(subject.config, Tabular(make_table(), True, wide=True).spec(), subject.discount)
    params = [x.state.learner.params for x in (subject, wide)]
    if not jax.tree.all(jax.tree.map(np.array_equal, *params)):
        return
    (rows, batches), (wide_rows, wide_batches) = subject.played, wide.played
    low, high = WIDE
    unit = 2 * (np.asarray(wide_rows.action) - low) / (high - low) - 1
    apart = float(np.abs(unit - rows.action).max())
    where = locate(subject.agent.actor, "select_action")
    yield ACTIONS.holds(apart < 1e-3, f"up to {apart:.3g} apart", where, wrong="note")
    if apart < 1e-3 and batches:
        found = subject.loss_and_gradient(batches[-1]), wide.loss_and_gradient(wide_batches[-1])
        one, other = (float(x[1]) for x in found)  # of densities, losses may differ by a constant
        got = f"gradient {one:.4g} and {other:.4g}"
        where = locate(subject.agent.learner, "loss")
        fine = bool(np.isclose(one, other, rtol=1e-2, atol=1e-4))
        yield LOSSES.holds(fine, got, where, wrong="note")
