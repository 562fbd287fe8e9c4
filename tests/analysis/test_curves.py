import numpy as np
import pytest

from rlws.analysis import statistics
from rlws.analysis.curves import POINTS, Curve, aligned, curves_figure
from rlws.tracking.figures import literal


def series(steps, values):
    return np.array(steps, float), np.array(values, float), np.ones(len(steps))


def test_aligned_seeds_share_the_steps_that_all_have():
    curve = aligned("x", [series([0, 50, 100], [0, 5, 10]), series([20, 120], [4, 4])])
    assert len(curve.steps) == POINTS
    assert (curve.steps[0], curve.steps[-1]) == (20, 100)
    np.testing.assert_allclose(curve.values[0], curve.steps / 10)
    np.testing.assert_array_equal(curve.values[1], 4)


def test_aligned_smooths_by_the_last_twentieth_of_the_steps():
    steps = np.arange(0.0, 101.0)
    curve = aligned("x", [series(steps, steps % 2)])  # a window of 5 steps: 2 or 3 of 5 are odd
    assert curve.values[0, -1] == pytest.approx(0.4)
    assert curve.values[0, 100:].max() <= 0.6


def test_middle_is_the_interquartile_mean_over_seeds():
    values = np.array([[0.0, 1], [1, 2], [2, 4], [100, -100]])
    np.testing.assert_array_equal(Curve("x", np.arange(2.0), values).middle, [1.5, 1.5])


def test_curves_figure_draws_a_line_each_and_a_band_where_there_are_seeds():
    random = np.random.default_rng(0)
    many = Curve("rate=$0.1$", np.arange(5.0), random.normal(size=(6, 5)))
    one = Curve("_", np.arange(3.0), np.ones((1, 3)))
    figure = curves_figure([many, one], "episode_return", "a $ b")
    axes = figure.axes[0]
    assert [line.get_label() for line in axes.lines] == [r"rate=\$0.1\$ (6 seeds)", " _ (1 seed)"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), many.middle)
    (band,) = axes.collections
    low, high = statistics.curve_band(many.values)
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(low.min())
    assert corners[:, 1].max() == pytest.approx(high.max())
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == 2
    figure.canvas.draw()  # what is no mathematics does not fail as such


def test_literal_keeps_plain_text_as_it_is():
    assert literal("learning_rate=0.1") == "learning_rate=0.1"
    assert literal("_x") == " _x"
