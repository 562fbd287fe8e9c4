"""Ways to search. Each is a generator: it yields the jobs of a round and is sent their scores.

They know nothing of how trials are run, and draw nothing that is not a function of a seed, so that
a study is repeated, and after a kill gone on with, by sending the same scores again.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlws.tune.spaces import Space

Values = Mapping[str, Any]  # settings by dotted name


class Job(NamedTuple):
    """A trial to be trained for a while."""

    trial: int
    settings: Values
    steps: int  # environment steps, in all, that it is to come to
    # Whose state it takes over first, as that was before this round; None: its own.
    parent: int | None = None


# Scores are in the order of the jobs; more is better, minus infinity is what came to NaN.
Plan = Generator[list[Job], list[float], None]


def full(draws: Sequence[Values], steps: int) -> Plan:
    """Trains every trial to the end."""
    yield [Job(i, settings, steps) for i, settings in enumerate(draws)]


def rungs(steps: int, count: int, eta: int) -> list[int]:
    """Returns the steps at which trials are compared, each `eta` times those before."""
    return [max(1, steps // eta**i) for i in reversed(range(count))]


def halving(draws: Sequence[Values], stops: Sequence[int], eta: int) -> Plan:
    """Trains all to the first stop, the best of them to the next, and so on.

    Jamieson and Talwalkar, 2016, "Non-stochastic best arm identification and hyperparameter
    optimization", https://arxiv.org/abs/1502.07943.
    """
    left = [*range(len(draws))]
    for stop in stops:
        scores = yield [Job(i, draws[i], stop) for i in left]
        order = sorted(zip(scores, left, strict=True), key=lambda pair: (-pair[0], pair[1]))
        most = max(1, len(left) // eta)
        left = [i for score, i in order[:most] if np.isfinite(score)]
        if not left:
            return


def asha(
    draws: Sequence[Values],
    stops: Sequence[int],
    eta: int,
    group: Callable[[Values], Any],
    places: int,
) -> Plan:
    """Halves without waiting: who is not among the best so far at a stop makes room for a new draw.

    Li et al., 2020, "A system for massively parallel hyperparameter tuning",
    https://arxiv.org/abs/1810.05934, in the form in which trials are stopped rather than paused.

    Args:
      draws: settings by trial.
      stops: steps at which trials are compared.
      eta: one in so many goes on.
      group: of settings; those of a group share a program.
      places: of trials in one program.
    """
    waiting, going = [*range(len(draws))], dict[int, int]()  # steps by trial
    passed: dict[int, list[tuple[float, int]]] = {stop: [] for stop in stops}
    of = lambda trial: group(draws[trial])
    while waiting or going:
        for trial in [*waiting]:
            if sum(of(other) == of(trial) for other in going) < places:
                going[trial] = 0
                waiting.remove(trial)
        left = {i: next(stop for stop in stops if stop > done) - done for i, done in going.items()}
        # Those of a program go equally far: to the first stop that any of them comes to.
        least = {of(i): min(left[j] for j in going if of(j) == of(i)) for i in going}
        jobs = [Job(i, draws[i], done + least[of(i)]) for i, done in going.items()]
        scores = yield jobs
        for job, score in zip(jobs, scores, strict=True):
            going[job.trial] = job.steps
            if job.steps in passed:
                passed[job.steps].append((score, -job.trial))
        for job, score in zip(jobs, scores, strict=True):
            if job.steps in passed:
                others = sorted(passed[job.steps], reverse=True)
                bar = others[max(1, len(others) // eta) - 1]
                last = job.steps == stops[-1] or not np.isfinite(score)
                if last or (score, -job.trial) < bar:
                    del going[job.trial]


FACTORS, REDRAWN, FIFTH = (0.8, 1.2), 0.25, 5  # of the paper


def pbt(
    draws: Sequence[Values], spaces: Sequence[Space], steps: int, rounds: int, seed: int
) -> Plan:
    """Trains a population whose worst take over state and settings of the best, and change these.

    Jaderberg et al., 2017, "Population based training of neural networks",
    https://arxiv.org/abs/1711.09846: truncation selection, then perturbing or drawing anew.
    """
    settings, count = [dict(values) for values in draws], len(draws)
    parents: list[int | None] = [None] * count
    for turn in range(1, rounds + 1):
        stop = steps * turn // rounds
        scores = yield [Job(i, dict(settings[i]), stop, parents[i]) for i in range(count)]
        random = np.random.default_rng([seed, count, turn])
        order = sorted(range(count), key=lambda i: (scores[i], -i))
        most = max(1, count // FIFTH)
        best = [i for i in order[-most:] if np.isfinite(scores[i])]
        worst = {*order[:most], *(i for i in order if not np.isfinite(scores[i]))}
        parents = [None] * count
        if not best:
            return
        for i in sorted(worst - {*best}):
            parents[i] = parent = int(random.choice(best))
            settings[i] = {x.name: _explored(x, settings[parent][x.name], random) for x in spaces}


def _explored(space: Space, value: float, random: np.random.Generator) -> float:
    place, kind, redrawn = random.random(3)
    if redrawn < REDRAWN or space.choices:
        return space.value(place)
    return space.within(value * FACTORS[int(2 * kind)])


def schedule(segments: Sequence[Sequence[tuple[int, Values]]]) -> Plan:
    """Trains each trial with the settings it is to have up to each of some steps, the same in all.

    Args:
      segments: by trial, steps and settings.
    """
    for turn in zip(*segments, strict=True):
        yield [Job(i, settings, steps) for i, (steps, settings) in enumerate(turn)]
