"""Checks of what a step brings the ones before it, where no episode is cut."""

from typing import Any

import numpy as np

from rlws.diagnose import outputs
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
MORE = 0.05  # of a reward
LITTLE = 0.005
NEVER = 1e-3  # a ratio


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
