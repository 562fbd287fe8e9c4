"""Probes: their answers against dynamic programming on their own tables."""

import numpy as np
import pytest

from rlws.diagnose.probes import PROBES as ALL
from rlws.diagnose.probing import ASKED
from rlws.diagnose.tabular import ACTIONS, FEATURES, LIMIT, STATES, Tabular

PROBES = {probe.name: probe for probe in ALL}
GAMMA = 0.9


def returns(table, gamma, limit, choose):
    """Returns the value of each state, [STATES], of a policy that may look `limit` steps ahead.

    `choose` takes the values of all actions, [STATES, ACTIONS], to those of the policy.
    """
    value = np.zeros(STATES)
    for _ in range(limit):
        onward = np.where(table.ends, 0.0, value[table.following])
        value = choose(table.reward + gamma * onward)
    return value


@pytest.mark.parametrize("name", [name for name, probe in PROBES.items() if probe.values])
@pytest.mark.parametrize("choose", [lambda q: q.max(axis=1), lambda q: q.min(axis=1)])
def test_values_are_those_of_any_policy(name, choose):
    probe = PROBES[name]
    value = returns(probe.table, GAMMA, 1000, choose)  # as if there were no time limit
    asked = probe.values(GAMMA)
    assert len(asked) <= ASKED
    np.testing.assert_allclose(asked, value[: len(asked)], rtol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name, probe in PROBES.items() if probe.values and not probe.needs]
)
def test_states_whose_values_are_asked_follow_each_other_or_begin_an_episode(name):
    probe, table = PROBES[name], PROBES[name].table
    for state in range(1, len(probe.values(GAMMA))):
        onward = not table.ends[state - 1, 0] and table.following[state - 1, 0] == state
        assert onward or state < table.starts


@pytest.mark.parametrize(
    "name", [n for n, p in PROBES.items() if not p.values and p.needs != "continuous"]
)
def test_best_returns_are_those_of_the_best_policy(name):
    probe = PROBES[name]
    value = returns(probe.table, 1.0, int(probe.table.limit), lambda q: q.max(axis=1))
    begin = value[: int(probe.table.starts)]
    np.testing.assert_allclose(begin.mean(), probe.best, rtol=2e-3)
    blind = returns(probe.table, 1.0, int(probe.table.limit), lambda q: q.mean(axis=1))
    assert begin.mean() - blind[: len(begin)].mean() > 2 * probe.tolerance * probe.spread


@pytest.mark.parametrize("name", PROBES)
def test_continuous_versions_are_worth_the_same_at_best(name):
    probe = PROBES[name]
    if probe.values or probe.needs in ("discrete", "exploration"):
        pytest.skip("asks for a value, or is discrete only")
    environment, total = Tabular(probe.table, True), []
    for start in range(int(probe.table.starts)):
        state, done, total_reward = (np.int32(start), np.int32(0)), False, 0.0
        while not done:
            action = probe.table.best[int(state[0])][None]
            state, timestep = environment.step(state, action)
            total_reward, done = total_reward + float(timestep.reward), bool(timestep.last())
        total.append(total_reward)
    assert np.mean(total) == pytest.approx(probe.best)


@pytest.mark.parametrize("name", PROBES)
def test_tables_are_sound(name):
    table = PROBES[name].table
    assert table.observation.shape == (STATES, FEATURES)
    assert table.following.shape == table.reward.shape == (STATES, ACTIONS)
    assert ((table.following >= 0) & (table.following < STATES)).all()
    assert 1 <= table.limit <= LIMIT
    reached, frontier = set(range(int(table.starts))), set(range(int(table.starts)))
    while frontier:
        onward = {
            int(table.following[s, a])
            for s in frontier
            for a in range(ACTIONS)
            if not table.ends[s, a]
        }
        frontier, reached = onward - reached, reached | onward
    shown = {(*table.observation[s], *table.legal[s]) for s in reached}
    assert table.legal.any(axis=1).all()
    # But for the corridor of the memory probe, and the coin, states can be told apart.
    assert len(shown) == {"memory": 4, "quantiles": 2}.get(PROBES[name].needs, len(reached))


def test_the_corridor_looks_the_same_whatever_the_cue():
    table, seen = PROBES["P8 memory"].table, []
    for cue in (0, 1):
        state, path = cue, []
        while not table.ends[state, 0]:
            state = int(table.following[state, 0])
            path.append(tuple(table.observation[state]))
        seen.append(path)
        assert table.reward[state].argmax() == cue
    assert seen[0] == seen[1]
    assert len(seen[0]) == 6


def test_a_miss_is_in_units_of_what_is_tolerated():
    value, best = PROBES["P6 truncation"], PROBES["P4 bandit"]
    found = np.array([[1.0] * 4, [1.0, 1.0, 1.0, 1.05], [np.nan] * 4])
    expected = [0, 0.05 / value.tolerance, np.nan]
    np.testing.assert_allclose(value.miss(0.9, found, np.zeros(3)), expected, atol=1e-6)
    np.testing.assert_allclose(best.miss(0.9, found, np.array([1.0, 0.9])), [0, 2], atol=1e-6)
