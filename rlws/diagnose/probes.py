"""The probes: problems of a few states, each with a known answer, each about one thing."""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from rlws.diagnose import advice
from rlws.diagnose.tabular import FEATURES, Table, make_table


class Probe(NamedTuple):
    """One problem, what an agent that works makes of it, and where to look if it does not."""

    name: str
    isolates: str
    table: Table
    advice: str | Callable[[np.ndarray, np.ndarray], str]  # of values expected and got
    values: Callable[[float], list[float]] | None = None  # of states 0, 1, ..., of the discount
    best: float = 1.0  # return of the best policy, where no values are asked
    tolerance: float = 0.05  # of values, relative to the largest; of the return, to `spread`
    spread: float = 1.0  # how much worse than the best a policy that knows nothing is
    needs: Literal["", "discrete", "continuous", "memory", "exploration", "mask", "quantiles"] = ""
    luck: bool = False  # whether to come upon it takes some: most seeds are enough
    advisory: bool = False  # a wrong answer is what an algorithm is like, not a fault

    @property
    def of_actor(self) -> bool:
        """Whether to look at the actor first where it fails, and not at the loss."""
        return self.needs not in ("", "discrete", "quantiles")

    def miss(self, gamma: float | None, values: np.ndarray, returns: np.ndarray) -> np.ndarray:
        """Returns how far answers are off, [seeds], of values [seeds, asked] and returns.

        In units of what is tolerated: up to 1 is right.
        """
        if self.values is None or gamma is None:
            return (self.best - returns) / (self.tolerance * self.spread)
        expected = np.array(self.values(gamma))
        off = np.abs(values[:, : len(expected)] - expected).max(axis=1)
        return off / (self.tolerance * np.abs(expected).max())


def match(scale: float = 1.0) -> Table:
    """The action has to be the state; of continuous ones, 0.5 less or more than nothing."""
    rewards = {(0, 0): scale, (1, 1): scale}
    return make_table(rewards, starts=2, best={0: -0.5, 1: 0.5}, cost=scale)


def cycle() -> Table:
    """Around four states, reward 0.1 each, cut after 8 steps."""
    onward = {state: (state + 1) % 4 for state in range(4)}
    return make_table(dict.fromkeys(range(4), 0.1), onward, starts=4, limit=8)


def chain() -> Table:
    """Through four states, reward 0.1 each, to the end."""
    return make_table(dict.fromkeys(range(4), 0.1), {0: 1, 1: 2, 2: 3}, limit=8)


def memory() -> Table:
    """State 0 or 1, then five that look the same from either, then a choice as in `match`."""
    paths = [0, *range(2, 8)], [1, *range(8, 14)]
    onward = {here: there for path in paths for here, there in itertools.pairwise(path)}
    table = make_table({(7, 0): 1.0, (13, 1): 1.0}, onward, starts=2, best={7: -0.5, 13: 0.5})
    table.observation[2:14] = np.eye(FEATURES)[2]
    table.observation[[7, 13]] = np.eye(FEATURES)[3]
    return table


def deep_sea(size: int = 10) -> Table:
    """Osband et al., 2020: only ten times right, at a cost of 0.001 each, finds the reward."""
    state = lambda row, column: row * (row + 1) // 2 + column
    places = [(row, column) for row in range(size) for column in range(row + 1)]
    onward = {
        state(row, column): (state(row + 1, max(column - 1, 0)), state(row + 1, column + 1))
        for row, column in places
        if row + 1 < size
    }
    rewards = {(state(*place), 1): -0.01 / size for place in places}
    table = make_table(rewards, onward, limit=size)
    for place in places:
        table.observation[state(*place)] = [*np.divide(place, size), 1, 0, 0, 0]
    table.reward[state(size - 1, size - 1), 1] += 1
    return table


def mask() -> Table:
    """As `match`, but that states look alike: which action is right, only the mask says."""
    table = match()
    table.observation[1] = table.observation[0]
    table.legal[0], table.legal[1] = (True, False), (False, True)
    return table


def coin() -> Table:
    """Two states that look alike, then two more that do: 4 is lost or won, and nobody can tell."""
    table = make_table({2: -4.0, 3: 4.0}, {0: 2, 1: 3}, starts=2)
    table.observation[[1, 3]] = table.observation[[0, 2]]
    return table


PROBES = (  # simplest first
    Probe(
        "P1 one state",
        "a value is learned at all",
        make_table({0: 1.0}),
        "values do not move towards their targets: look at the value loss and its sign",
        lambda gamma: [1.0],
    ),
    Probe(
        "P2 two states",
        "the value depends on the observation",
        make_table({0: 1.0, 1: -1.0}, starts=2),
        "values do not tell observations apart: look for (B,) - (B, 1) that broadcasts, for "
        "observations and targets that are one step apart, and at the batch axis",
        lambda gamma: [1.0, -1.0],
    ),
    Probe(
        "P3 reward later",
        "discount, and bootstrapping from the next state",
        make_table({1: 1.0}, {0: 1}),
        advice.of_discounting,
        lambda gamma: [gamma, 1.0],
    ),
    Probe(
        "P4 bandit",
        "the sign of the advantage",
        make_table({(0, 1): 1.0}, best={0: 0.3}),
        advice.of_bandit,
    ),
    Probe(
        "P5 match",
        "the action depends on the observation",
        match(),
        "actions do not depend on observations as they should: look at the order of "
        "observations, actions and advantages, and at what the policy is given",
    ),
    Probe(
        "P6 truncation",
        "a time limit is no end: the return goes on",
        cycle(),
        advice.of_truncation,
        lambda gamma: [0.1 / (1 - gamma)] * 4,
        tolerance=0.1,  # who takes the best of what is uncertain overestimates what never ends
    ),
    Probe(
        "P7 termination",
        "an end is an end: nothing is worth anything after it",
        chain(),
        advice.of_termination,
        lambda gamma: [0.1 * (1 - gamma**k) / (1 - gamma) for k in (4, 3, 2, 1)],
        tolerance=0.1,
    ),
    Probe(
        "P8 memory",
        "the core carries one bit over five steps, and none into the next episode",
        memory(),
        "memory does not reach the choice: look at resets, and the core state recorded",
        needs="memory",
    ),
    Probe(
        "P9 bound",
        "the best action, at the bound, can be reached",
        make_table(best={0: 1.0}),
        "the bound is not reached: look at how actions are squashed or clipped",
        needs="continuous",
        luck=True,
    ),
    Probe(
        "P10 deep sea",
        "exploration: one way in 1,024 is rewarded",
        deep_sea(),
        "nothing explores: an intrinsic reward such as the term RND would",
        best=0.99,
        needs="exploration",
        advisory=True,
    ),
    Probe(
        "P11 mask",
        "what the action mask forbids is not done",
        mask(),
        "forbidden actions are chosen: networks.compose masks policies and action values by "
        "observation['action_mask']; what explores must look at it, too (random_action)",
        spread=0.5,
        needs="mask",
    ),
    *(
        Probe(name, isolates, match(x), advice.UNITS, best=x, spread=x, advisory=True)
        for name, isolates, x in (
            ("P12 rewards / 1000", "small rewards", 1e-3),
            ("P12 rewards x 1000", "large rewards", 1e3),
        )
    ),
    Probe(
        "P13 plan",
        "what follows is worth what the best action there makes of it",
        make_table({(0, 0): 0.5, (1, 1): 1.0}, {(0, 1): 1}),
        "what follows is not worth what the best action there makes of it: look at which action "
        "the target takes or, where advantages are of returns, at what comes later in them",
        spread=0.5,
        needs="discrete",
        luck=True,
    ),
    Probe(
        "P14 coin",
        "the distribution of what is random, not only its mean",
        coin(),
        "the lower and the upper half of the quantiles are not those of the return: look at which "
        "axis is that of targets, at the fractions and which side of them is weighted how",
        lambda gamma: [-4 * gamma, 4 * gamma, -4.0, 4.0],
        tolerance=0.3,  # a Huber loss of 1 draws quantiles together by as much
        needs="quantiles",
    ),
)
