"""Methods, by the jobs they ask for when they are sent known scores."""

import numpy as np
import pytest

from rlws.tune import methods
from rlws.tune.spaces import Space

SPACE = Space("agent.discount", (), 0.1, 1.0)
DRAWS = [{"agent.discount": 0.1 * (i + 1)} for i in range(8)]


def play(plan, score):
    """Returns the rounds of a plan, each a list of jobs; `score` is of a job."""
    rounds, scores = [], None
    while True:
        try:
            rounds.append(plan.send(scores))
        except StopIteration:
            return rounds
        scores = [score(job) for job in rounds[-1]]


def pairs(rounds):
    return [[(job.trial, job.steps) for job in jobs] for jobs in rounds]


def test_rungs_end_at_the_budget():
    assert methods.rungs(500_000, 3, 4) == [31_250, 125_000, 500_000]
    assert methods.rungs(10, 3, 4) == [1, 2, 10]


def test_halving_takes_the_best_of_all_further():
    rounds = play(methods.halving(DRAWS, [10, 20, 40], 2), lambda job: job.trial % 5)
    assert pairs(rounds) == [
        [(i, 10) for i in range(8)],
        [(4, 20), (3, 20), (2, 20), (7, 20)],
        [(4, 40), (3, 40)],
    ]


def test_halving_ends_where_all_fail():
    assert len(play(methods.halving(DRAWS, [10, 20], 2), lambda job: -np.inf)) == 1


def test_asha_replaces_losers_by_new_draws():
    plan = methods.asha(DRAWS, [10, 20, 40], 2, lambda settings: None, 4)
    assert pairs(play(plan, lambda job: job.trial)) == [
        [(0, 10), (1, 10), (2, 10), (3, 10)],
        [(2, 20), (3, 20), (4, 10), (5, 10)],  # the better half of four
        [(3, 30), (4, 20), (5, 20), (6, 10)],
        [(3, 40), (4, 30), (5, 30), (6, 20)],
        [(4, 40), (5, 40), (6, 30), (7, 10)],
        [(6, 40), (7, 20)],
        [(7, 40)],
    ]


def test_asha_goes_to_the_next_stop_at_once_where_no_draw_is_left():
    plan = methods.asha(DRAWS[:2], [10, 40], 2, lambda settings: None, 4)
    assert pairs(play(plan, lambda job: job.trial)) == [[(0, 10), (1, 10)], [(1, 40)]]


def test_asha_has_places_in_each_group():
    plan = methods.asha(DRAWS, [10], 2, lambda x: x["agent.discount"] > 0.55, 2)
    assert pairs(play(plan, lambda job: 0.0)) == [
        [(0, 10), (1, 10), (5, 10), (6, 10)],
        [(2, 10), (3, 10), (7, 10)],
        [(4, 10)],
    ]


def test_asha_lets_no_failure_go_on():
    plan = methods.asha(DRAWS, [10, 20], 2, lambda settings: None, 8)
    assert len(play(plan, lambda job: -np.inf)) == 1


def test_pbt_copies_the_best_to_the_worst_and_changes_it():
    draws = DRAWS + [{"agent.discount": 0.5 + 0.01 * i} for i in range(2)]  # ten: a fifth is two
    rounds = play(methods.pbt(draws, [SPACE], 100, 4, seed=0), lambda job: job.trial)
    assert [jobs[0].steps for jobs in rounds] == [25, 50, 75, 100]
    assert all(job.parent is None for job in rounds[0])
    before = rounds[0]
    for jobs in rounds[1:]:
        assert [job.trial for job in jobs if job.parent is not None] == [0, 1]
        for job in jobs[:2]:
            assert job.parent in (8, 9)
            old, new = before[job.parent].settings[SPACE.name], job.settings[SPACE.name]
            factors = new / old == pytest.approx(0.8), new / old == pytest.approx(1.2)
            assert any(factors) or SPACE.low <= new <= SPACE.high
        assert [job.settings for job in jobs[2:]] == draws[2:]
        before = jobs
    again = play(methods.pbt(draws, [SPACE], 100, 4, seed=0), lambda job: job.trial)
    assert again == rounds
    other = play(methods.pbt(draws, [SPACE], 100, 4, seed=1), lambda job: job.trial)
    assert other != rounds


def test_pbt_explores_by_factors_three_times_in_four():
    random = np.random.default_rng(0)
    wide = Space("x", (), 0.0, 10.0)
    found = np.array([methods._explored(wide, 5.0, random) for _ in range(4000)])
    shares = [np.mean(found == value) for value in (4.0, 6.0)]
    assert shares == pytest.approx([0.375, 0.375], abs=0.03)
    assert methods._explored(SPACE, 1.0, np.random.default_rng(3)) <= SPACE.high


def test_pbt_replaces_whoever_failed():
    score = lambda job: -np.inf if job.trial in (3, 4, 5) else job.trial
    rounds = play(methods.pbt(DRAWS, [SPACE], 10, 2, seed=0), score)
    assert [job.trial for job in rounds[1] if job.parent is not None] == [3, 4, 5]
    assert {job.parent for job in rounds[1]} == {None, 7}
