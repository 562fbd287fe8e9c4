"""Checks of what comes of an action later, where nothing is cut, and of ratios in values."""

from typing import Any

import numpy as np

from rlws.diagnose import outputs
from rlws.diagnose.check import Question
from rlws.diagnose.value_gradients import middle

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
LITTLE = 0.005
NEVER = 1e-3  # a ratio


def check_credit(instrument, known, fields, loss, gamma):
    """Yields how much what comes a step later counts for an action, at this gamma.

    Values are told to be 0, and no episode is cut.
    """
    name, (row, steps, at) = instrument.state_value, middle(instrument)
    policy = next((x for x in instrument.sizes if x.endswith(".logits")), None)
    if not name or policy is None or len(steps) < 4:
        return
    tables = {key: 0 * x if outputs.is_value(key) else x for key, x in known.items()}
    begins = np.zeros_like(fields["first"])
    begins[:, 0] = True
    fields = fields | {"last": np.zeros_like(fields["last"]), "first": begins}
    fields["discount"] = np.ones_like(fields["discount"])
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
