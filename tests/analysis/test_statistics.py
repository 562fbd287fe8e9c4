import itertools

import numpy as np
import pytest
from scipy import stats

from rlws.analysis import statistics

OURS = np.random.default_rng(0).exponential(size=20)
THEIRS = np.random.default_rng(1).exponential(size=15) - 0.3


def scipy_interval(samples, statistic):
    return stats.bootstrap(
        samples,
        statistic,
        n_resamples=statistics.RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval


def trimmed_mean(scores, axis):
    return stats.trim_mean(scores, 0.25, axis=axis)


def mann_whitney(ours, theirs, axis=-1):
    pairs = ours.shape[axis] * theirs.shape[axis]
    return stats.mannwhitneyu(ours, theirs, axis=axis).statistic / pairs


@pytest.mark.parametrize("count", [1, 3, 4, 7, 10, 20])
def test_interquartile_mean_is_scipys_trimmed_mean(count):
    scores = np.random.default_rng(count).normal(size=(5, count))
    expected = stats.trim_mean(scores, 0.25, axis=1)
    np.testing.assert_allclose(statistics.interquartile_mean(scores), expected)
    np.testing.assert_allclose(statistics.interquartile_mean(scores.T, axis=0), expected)


def test_interval_agrees_with_scipys_percentile_bootstrap():
    expected = scipy_interval((OURS,), trimmed_mean)
    np.testing.assert_allclose(statistics.interval(OURS), expected, atol=0.02)


def test_difference_interval_agrees_with_scipys_percentile_bootstrap():
    expected = scipy_interval(
        (OURS, THEIRS), lambda a, b, axis: trimmed_mean(a, axis) - trimmed_mean(b, axis)
    )
    np.testing.assert_allclose(statistics.difference_interval(OURS, THEIRS), expected, atol=0.03)


def test_probability_of_improvement_is_that_of_mann_and_whitney():
    assert statistics.probability_of_improvement(OURS, THEIRS) == mann_whitney(OURS, THEIRS)
    tied = np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 3.0, 3.0])
    assert statistics.probability_of_improvement(*tied) == mann_whitney(*tied) == 3 / 12
    assert statistics.probability_of_improvement(OURS, OURS) == 0.5


def test_improvement_interval_agrees_with_scipys_percentile_bootstrap():
    expected = scipy_interval((OURS, THEIRS), mann_whitney)
    np.testing.assert_allclose(statistics.improvement_interval(OURS, THEIRS), expected, atol=0.02)


def test_tasks_are_resampled_each_by_itself():
    scores = np.array([[0.0] * 6, [10.0] * 6])
    assert statistics.interval(scores) == (5, 5)
    assert statistics.difference_interval(scores, scores + 1) == (-1, -1)
    low, high = statistics.interval(scores.ravel())  # all twelve alike
    assert low < 5 < high


def test_interval_of_tasks_is_that_of_their_pooled_mean():
    scores = np.random.default_rng(0).normal(size=(2, 20), loc=[[0], [3]])
    expected = scipy_interval(
        tuple(scores), lambda a, b, axis: trimmed_mean(np.concatenate([a, b], axis), axis)
    )
    np.testing.assert_allclose(statistics.interval(scores), expected, atol=0.05)


def test_improvement_of_tasks_is_its_mean_over_tasks():
    ours, theirs = np.array([[1.0, 1.0], [0.0, 2.0]]), np.array([[0.0], [1.0]])
    assert statistics.probability_of_improvement(ours, theirs) == (1 + 0.5) / 2
    low, high = statistics.improvement_interval(ours, theirs)
    assert (low, high) == (0.5, 1)  # the first task always wins


@pytest.mark.parametrize(
    "interval",
    [
        statistics.interval,
        lambda scores, seed=0: statistics.difference_interval(scores, THEIRS, seed),
        lambda scores, seed=0: statistics.improvement_interval(scores, THEIRS, seed),
    ],
)
def test_intervals_are_decided_by_their_seed(interval):
    assert interval(OURS) == interval(OURS)
    assert interval(OURS, seed=1) != interval(OURS)


def test_difference_interval_widens_with_its_coverage():
    assert statistics.difference_interval(OURS, THEIRS) == statistics.difference_interval(
        OURS, THEIRS, coverage=0.95
    )
    narrow = statistics.difference_interval(OURS, THEIRS, coverage=0.5)
    wide = statistics.difference_interval(OURS, THEIRS, coverage=0.999)
    low, high = statistics.difference_interval(OURS, THEIRS)
    assert wide[0] < low < narrow[0] < narrow[1] < high < wide[1]


def test_curve_band_is_the_interval_of_each_point():
    curves = np.stack([OURS, 2 * OURS, np.full_like(OURS, 3.0)], axis=1)
    low, high = statistics.curve_band(curves)
    np.testing.assert_allclose([low[0], high[0]], statistics.interval(OURS), atol=0.04)
    np.testing.assert_allclose([low[1], high[1]], [2 * low[0], 2 * high[0]])
    assert (low[2], high[2]) == (3, 3)


def test_performance_profile_is_the_share_of_scores_above_each_threshold():
    scores = np.array([1.0, 2.0, 2.0, 5.0])
    expected = [1, 0.75, 0.25, 0]
    thresholds = np.array([0.0, 1.0, 2.0, 5.0])
    np.testing.assert_array_equal(statistics.performance_profile(scores, thresholds), expected)
    tasks = np.stack([scores, scores + 10])  # the mean over tasks
    np.testing.assert_array_equal(
        statistics.performance_profile(tasks, thresholds), [1, 0.875, 0.625, 0.5]
    )


def test_profile_band_agrees_with_scipys_percentile_bootstrap():
    low, high = statistics.profile_band(OURS, np.array([-1.0, 1.0, 100.0]))
    expected = scipy_interval((OURS,), lambda scores, axis: (scores > 1).mean(axis))
    np.testing.assert_allclose([low[1], high[1]], expected, atol=0.051)
    assert (low[0], high[0], low[2], high[2]) == (1, 1, 0, 0)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 4), (5, 7), (20, 15)])
def test_rank_sum_p_without_ties_is_scipys_exact_one(n, m):
    ours, theirs = OURS[:n], THEIRS[:m] + 0.1
    expected = stats.mannwhitneyu(ours, theirs, method="exact").pvalue
    assert statistics.rank_sum_p(ours, theirs) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_rank_sum_p_with_ties_is_that_of_all_divisions(seed):
    ours, theirs = np.random.default_rng(seed).integers(0, [[3], [4]], size=(2, 5)).astype(float)
    ranks = stats.rankdata(np.concatenate([ours, theirs]))
    sums = np.array([sum(chosen) for chosen in itertools.combinations(ranks, 5)])
    expected = (np.abs(sums - 27.5) >= abs(ranks[:5].sum() - 27.5)).mean()
    assert statistics.rank_sum_p(ours, theirs) == pytest.approx(expected, rel=1e-12)


def test_rank_sum_p_of_equal_scores_is_one():
    assert statistics.rank_sum_p(np.ones(5), np.ones(4)) == 1


def test_rank_sum_p_of_tasks_divides_each_by_itself():
    ours, theirs = np.array([[2.0, 3.0], [2.0, 3.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    assert statistics.rank_sum_p(ours, theirs) == pytest.approx(2 / 36)  # both extreme, either way
    assert statistics.rank_sum_p(ours, theirs + np.array([[0], [9]])) == 1  # they cancel out


@pytest.mark.parametrize("shape", [(4,), (7,), (2, 3)])
def test_smallest_p_is_that_of_sides_apart(shape):
    ours = np.arange(np.prod(shape), dtype=float).reshape(shape)
    theirs = ours[..., :3] + 100
    assert statistics.smallest_p(ours, theirs) == pytest.approx(statistics.rank_sum_p(ours, theirs))


@pytest.mark.parametrize(("n", "m"), [(3, 300), (300, 3), (300, 260)])
def test_rank_sum_p_of_hundreds_is_near_scipys(n, m):
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.2, 1.0, n), rng.normal(size=m)
    expected = stats.mannwhitneyu(ours, theirs, method="asymptotic", use_continuity=False).pvalue
    assert statistics.rank_sum_p(ours, theirs) == pytest.approx(expected, rel=0.1)
    assert statistics.rank_sum_p(theirs, ours) == pytest.approx(statistics.rank_sum_p(ours, theirs))
    assert 0 <= statistics.smallest_p(ours, theirs) < 1e-5
