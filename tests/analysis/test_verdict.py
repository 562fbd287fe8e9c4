import numpy as np
import pytest

from rlws.analysis.comparison.verdict import judge

LOW, HIGH = np.arange(6.0), 10 + np.arange(6.0)


@pytest.mark.parametrize(
    ("ours", "theirs", "margin", "expected"),
    [
        (HIGH, LOW, 0.0, "A"),
        (LOW, HIGH, 0.0, "B"),
        (HIGH, LOW, 20.0, "same"),  # there is a difference, and it does not matter
        (LOW, LOW + 0.5, 0.0, "undecided"),
        (np.full(5, 500.0), np.full(5, 500.0), 0.0, "same"),
        # Too few seeds for any test to reject, however far apart.
        (HIGH[:3], LOW[:3], 0.0, "undecided"),
        (np.ones(3), np.ones(3), 1.0, "undecided"),
        # 2 / (6 over 3)^2 = 0.005: two environments decide together.
        (np.stack([HIGH[:3], HIGH[:3]]), np.stack([LOW[:3], LOW[:3]]), 0.0, "A"),
    ],
)
def test_judge(ours, theirs, margin, expected):
    verdict = judge(ours, theirs, margin)
    assert verdict.outcome == expected
    assert verdict.decided == (expected != "undecided")


def test_judge_gives_difference_p_and_whether_seeds_are_enough():
    verdict = judge(HIGH, LOW, 0.0)
    assert verdict.difference == 10
    assert verdict.p == pytest.approx(2 / 924)
    assert verdict.enough
    assert not judge(HIGH[:3], LOW[:3], 0.0).enough
    assert judge(HIGH[:4], LOW[:4], 0.0).enough  # 2 / 70


def test_judge_needs_the_level_it_is_given():
    assert judge(HIGH, LOW, 0.0, level=0.003).outcome == "A"
    assert judge(HIGH, LOW, 0.0, level=0.002).outcome == "undecided"


def test_ranks_that_differ_are_not_enough_if_the_middle_does_not():
    # The lower half is far lower, which the interquartile mean hardly sees.
    theirs = np.array([10.0] * 12)
    ours = np.array([10.0] * 9 + [11.0] * 8)
    verdict = judge(np.sort(ours), theirs, 0.0)
    assert verdict.p < 0.05
    assert verdict.interval[0] == 0
    assert verdict.outcome == "undecided"
