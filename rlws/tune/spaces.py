"""What is searched: settings, and what they may be."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlws.runs.experiment import Experiment
from rlws.runs.sweep import parse
from rlws.settings import SettingError, change


class Space(NamedTuple):
    """What one setting may be: one of `choices`, or a number from `low` to `high`."""

    name: str  # of the setting, dotted: agent.learning_rate
    choices: tuple = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False  # equal ratios are equally likely, not equal differences
    whole: bool = False

    @property
    def real(self) -> bool:
        """Whether all it may be is real numbers, which are data to a compiled program."""
        return not self.whole and all(isinstance(value, float) for value in self.choices)

    def value(self, place: float) -> Any:
        """Returns the value at a place in [0, 1): draws that are uniform there are the prior."""
        if self.choices:
            return self.choices[int(place * len(self.choices))]
        half = 0.5 * self.whole
        low, high = self.low - half, self.high + half
        found = low * (high / low) ** place if self.log else low + (high - low) * place
        return self.within(found)

    def within(self, value: float) -> float:
        """Returns the nearest value of the range."""
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else float(f"{value:.6g}")


def parse_spaces(texts: Sequence[str], experiment: Experiment) -> tuple[Space, ...]:
    """Returns the spaces of `name=log:a:b`, `name=a:b` and `name=v,v,...`.

    Raises:
      SettingError: one is of another form, empty, or holds what its setting cannot be.
    """
    if not texts:
        raise SettingError(
            "--space must say what is searched, got none; such as agent.learning-rate=log:1e-5:1e-2"
        )
    found = [_parsed(text, experiment) for text in texts]
    names = [space.name for space in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingError(f"--space: {twice[0]} must be given once, got it twice; leave one out")
    return tuple(found)


def _parsed(text, experiment):
    name, equals, values = text.partition("=")
    span = re.fullmatch(r"(log:)?(?!log:)([^:,]+):([^:,]+)", values)
    plain = f"{span[2]},{span[3]}" if span else values
    if not equals or (values.startswith("log") and not span):
        raise SettingError(
            f"--space must be name=log:low:high, name=low:high or name=value,value, got {text!r}"
        )
    pairs = parse(f"{name}={plain}", experiment, "--space")
    if pairs[0][0].partition(".")[0] not in ("agent", "trainer"):
        raise SettingError(
            f"--space must be of the agent or its trainer, got {name}: scores of other tasks, "
            "budgets or seeds are not to be compared; see --seeds"
        )
    for pair in pairs:
        change(experiment, dict([pair]))  # as its own checks have it
    name, choices = pairs[0][0], tuple(value for _, value in pairs)
    if not span:
        return Space(name, choices)
    low, high = choices
    if not all(type(end) in (int, float) for end in choices):
        raise SettingError(f"--space {name}: ends must be numbers, got {values!r}; list choices")
    if not low < high:
        raise SettingError(f"--space {name}: low must be below high, got {values!r}; swap them")
    if span[1] and low <= 0:
        raise SettingError(
            f"--space {name}: low must be greater than 0 for log:, got {low:g}; leave it out"
        )
    whole = type(low) is type(high) is int
    return Space(name, (), low, high, bool(span[1]), whole)


def draw(spaces: Sequence[Space], count: int, seed: int, sobol: bool) -> list[dict[str, Any]]:
    """Returns settings by trial: a function of the spaces, the seed and the trial's number.

    Args:
      spaces: to draw from.
      count: of trials.
      seed: of the study.
      sobol: whether they fill the spaces evenly, by a scrambled Sobol sequence.
    """
    if sobol:
        from scipy.stats import qmc  # takes a third of a second

        sequence = qmc.Sobol(len(spaces), rng=np.random.default_rng(seed))
        places = sequence.random_base2(math.ceil(math.log2(max(2, count))))[:count]
    else:
        places = [np.random.default_rng([seed, i]).random(len(spaces)) for i in range(count)]
    return [{s.name: s.value(x) for s, x in zip(spaces, row, strict=True)} for row in places]
