"""The ladder: problems of a few states, each with a known answer, each about one thing."""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from rlws.diagnose.tabular import Table, blank


class Probe(NamedTuple):
    """One problem, and what an agent that works makes of it."""

    name: str
    isolates: str
    table: Table
    episodes: tuple[tuple[int, ...], ...] = ()  # their states, in order, whose value is asked
    values: Callable[[float], list[float]] | None = None  # theirs, of the discount gamma
    best: float | None = None  # return of the best policy
    tolerance: float = 0.05  # of values, relative to the largest; of the return, to `spread`
    spread: float = 1.0  # how much worse than the best a policy that knows nothing is
    needs: Literal["", "discrete", "continuous", "memory", "exploration", "mask"] = ""


def ladder() -> list[Probe]:
    """Returns all probes, simplest first."""
    return [
        Probe(
            "P1 one state",
            "a value is learned at all",
            one_state(),
            ((0,),),
            lambda gamma: [1.0],
        ),
        Probe(
            "P2 two states",
            "the value depends on the observation",
            two_states(),
            ((0,), (1,)),
            lambda gamma: [1.0, -1.0],
        ),
        Probe(
            "P3 reward later",
            "discount, and bootstrapping from the next state",
            reward_later(),
            ((0, 1),),
            lambda gamma: [gamma, 1.0],
        ),
        Probe("P4 bandit", "the sign of the advantage", bandit(), best=1.0),
        Probe("P5 match", "the action depends on the observation", match(), best=1.0),
        Probe(
            "P6 truncation",
            "a time limit is no end: the return goes on",
            cycle(),
            ((0, 1, 2, 3),),
            lambda gamma: [0.1 / (1 - gamma)] * 4,
        ),
        Probe(
            "P7 termination",
            "an end is an end: nothing is worth anything after it",
            chain(),
            ((0, 1, 2, 3),),
            lambda gamma: [0.1 * (1 - gamma**k) / (1 - gamma) for k in (4, 3, 2, 1)],
        ),
        Probe(
            "P8 memory",
            "the core carries one bit over five steps, and none into the next episode",
            memory(),
            best=1.0,
            needs="memory",
        ),
        Probe(
            "P9 bound",
            "the best action, at the bound, can be reached",
            bound(),
            best=1.0,
            needs="continuous",
        ),
        Probe(
            "P10 deep sea",
            "exploration: one way in 1,024 is rewarded",
            deep_sea(),
            best=0.99,
            needs="exploration",
        ),
        Probe(
            "P11 mask",
            "what the action mask forbids is not done",
            masked(),
            best=1.0,
            spread=0.5,
            needs="mask",
        ),
        Probe("P12 rewards / 1000", "small rewards", match(1e-3), best=1e-3, spread=1e-3),
        Probe("P12 rewards x 1000", "large rewards", match(1e3), best=1e3, spread=1e3),
        Probe(
            "P13 plan",
            "what follows is worth what the best action there makes of it",
            plan(),
            best=1.0,
            spread=0.5,
            needs="discrete",
        ),
    ]


def one_state() -> Table:
    """Reward 1, and the end."""
    table = blank()
    table.reward[0] = 1
    return table


def two_states() -> Table:
    """Reward 1 in state 0 and -1 in state 1."""
    table = blank(starts=2)
    table.reward[0], table.reward[1] = 1, -1
    return table


def reward_later() -> Table:
    """From state 0 to state 1 without reward, and from there to the end with 1."""
    table = blank()
    table.following[0], table.ends[0] = 1, False
    table.reward[1] = 1
    return table


def bandit() -> Table:
    """Action 1 is rewarded; of continuous ones 0.3 is best."""
    table = blank()
    table.reward[0, 1] = 1
    return _peak(table, {0: 0.3})


def match(scale: float = 1.0) -> Table:
    """The action has to be the state; of continuous ones, 0.5 less or more than nothing."""
    table = blank(starts=2)
    table.reward[0, 0] = table.reward[1, 1] = scale
    return _peak(table, {0: -0.5, 1: 0.5}, scale)


def cycle() -> Table:
    """Around four states, reward 0.1 each, cut after 8 steps."""
    table = blank(starts=4, limit=8)
    for state in range(4):
        table.following[state], table.ends[state] = (state + 1) % 4, False
        table.reward[state] = 0.1
    return table


def chain() -> Table:
    """Through four states, reward 0.1 each, to the end."""
    table = cycle()
    table.ends[3] = True
    return table._replace(starts=np.int32(1))


def memory() -> Table:
    """State 0 or 1, then five that look the same from either, then a choice as in `match`."""
    table = blank(starts=2)
    for cue in (0, 1):
        places = [cue, *range(2 + 6 * cue, 8 + 6 * cue)]
        for here, there in itertools.pairwise(places):
            table.following[here], table.ends[here] = there, False
            table.observation[there] = np.eye(len(table.observation[0]))[2]
        table.observation[places[-1]] = np.eye(len(table.observation[0]))[3]
        table.reward[places[-1], cue] = 1
        table = _peak(table, {places[-1]: cue - 0.5})
    return table


def bound() -> Table:
    """Of continuous actions 1, the largest, is best."""
    return _peak(blank(), {0: 1.0})


def deep_sea(size: int = 10) -> Table:
    """Osband et al., 2020: only ten times right, at a cost of 0.001 each, finds the reward."""
    table = blank(limit=size)
    place = lambda row, column: row * (row + 1) // 2 + column
    for row in range(size):
        for column in range(row + 1):
            here = place(row, column)
            table.observation[here] = [row / size, column / size, 1, 0, 0, 0]
            if row + 1 < size:
                table.ends[here] = False
                table.following[here] = (
                    place(row + 1, max(column - 1, 0)),
                    place(row + 1, column + 1),
                )
            table.reward[here, 1] = -0.01 / size
    table.reward[place(size - 1, size - 1), 1] += 1
    return table


def masked() -> Table:
    """As `match`, but that states look alike: which action is right, only the mask says."""
    table = match()
    table.observation[1] = table.observation[0]
    table.legal[0], table.legal[1] = (True, False), (False, True)
    return table


def plan() -> Table:
    """Half a reward at once, or all of it by the right action in the next state."""
    table = blank()
    table.reward[0, 0], table.reward[1, 1] = 0.5, 1
    table.following[0, 1], table.ends[0, 1] = 1, False
    return table


def _peak(table: Table, best: dict[int, float], scale: float = 1.0) -> Table:
    """Returns the table with a best continuous action in some states, worth what the best is."""
    for state, action in best.items():
        table.best[state], table.cost[state] = action, scale
    return table
