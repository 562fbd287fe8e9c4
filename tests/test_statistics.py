import numpy as np
import pytest
from scipy import stats

from rlws import statistics

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


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (18, 20), (20, 20)])
def test_wilson_interval_is_scipys(successes, count):
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    np.testing.assert_allclose(
        statistics.wilson_interval(successes, count), expected, rtol=1e-6, atol=1e-12
    )
