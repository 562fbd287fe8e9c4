import numpy as np
import pytest
from scipy import stats

from benchmarks import learning


@pytest.mark.parametrize("count", [1, 3, 4, 7, 10, 20])
def test_interquartile_mean_is_scipys_trimmed_mean(count):
    values = np.random.default_rng(count).normal(size=(5, count))
    expected = stats.trim_mean(values, 0.25, axis=1)
    np.testing.assert_allclose(learning.interquartile_mean(values), expected)


def test_interval_agrees_with_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).exponential(size=20)
    expected = stats.bootstrap(
        (values,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(learning.interval(values), expected, atol=0.03)


def test_interval_is_the_same_each_time():
    values = np.arange(10.0)
    assert learning.interval(values) == learning.interval(values)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(484, 490, "match"), (475, 490, "undecided"), (470, 482, "fail"), (483, 500, "match")],
)
def test_verdict(low, high, expected):
    assert learning.verdict(low, high, 483) == expected


@pytest.mark.slow
def test_reinforce_solves_cartpole_within_200_000_steps():
    found, curves = learning.scores(learning.ROWS["1"], range(5))
    training, greedy = found.T
    assert [curve[-1][1] for curve in curves] == pytest.approx(list(training))
    assert (greedy >= 475).sum() >= 4
    assert learning.interquartile_mean(training) >= 475
