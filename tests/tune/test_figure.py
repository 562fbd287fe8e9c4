"""Which settings mattered: shares of known variance, and a picture of all there is to draw."""

import io
import math

import numpy as np
import pytest

from rlws.tune import figure
from rlws.tune.methods import Job
from rlws.tune.spaces import Space, draw

DECIDES = Space("agent.discount", (), 0.0, 1.0)
IDLE = Space("agent.learning_rate", (), 1e-4, 1e-1, log=True)
CHOICE = Space("agent.unroll_length", (10, 20))
SPACES = DECIDES, IDLE, CHOICE


def pairs(score, count=48, steps=10):
    return [(Job(i, x, steps), score(i, x)) for i, x in enumerate(draw(SPACES, count, 0, True))]


def test_the_share_is_that_of_the_variance_between_bins():
    bins, scores = np.array([0, 0, 1, 1]), np.array([0.0, 2.0, 4.0, 6.0])
    # Of 20, 16 lie between bins and 4 within, with 2 degrees of freedom: chance puts 2 there.
    assert figure._explained(bins, scores) == pytest.approx((16 - 2) / 20)
    assert figure._explained(bins, np.array([0.0, 0.0, 1.0, 1.0])) == 1.0
    random = np.random.default_rng(0)
    dealt = [figure._explained(bins, random.permutation(scores)) for _ in range(2000)]
    assert np.mean(dealt) == pytest.approx(0.0, abs=0.05)


def test_importance_finds_what_decides_and_nothing_in_what_does_not():
    found = figure.importance(SPACES, pairs(lambda i, x: x["agent.discount"] + 0.01 * (i % 2)))
    assert found["agent.discount"].share > 0.9
    assert found["agent.discount"].p == 0.0
    assert found["agent.learning_rate"].p > 0.05
    assert found["agent.learning_rate"].text.endswith("no more than chance")
    other = figure.importance(SPACES, pairs(lambda i, x: float(x["agent.unroll_length"])))
    assert other["agent.unroll_length"].share == 1.0


def test_of_equal_scores_nothing_is_said():
    found = figure.importance(SPACES, pairs(lambda i, x: 1.0))
    assert {share.text for share in found.values()} == {""}


def test_whole_values_share_a_bin():
    space = Space("agent.epochs", (), 1, 2, whole=True)
    jobs = [(Job(i, {"agent.epochs": 1 + (i > 4)}, 1), 0.0) for i in range(24)]
    assert [*np.unique(figure._bins(space, jobs), return_counts=True)[1]] == [5, 19]


def test_scores_are_compared_where_most_trials_were_and_least_was_chosen():
    first = pairs(lambda i, x: 0.0, 4, 10)
    assert figure.comparable(first + pairs(lambda i, x: 1.0, 2, 20)) == first
    assert figure.comparable(pairs(lambda i, x: 1.0, 4, 20) + first) == first


def test_the_picture_shows_the_most_important_first():
    score = lambda i, x: -math.inf if i == 3 else x["agent.unroll_length"] + 0.1 * (i % 5)
    found = pairs(score) + pairs(score, 2, 40)
    drawn = figure.study_figure(SPACES, found, "evaluation_return_mean", "a $tudy")
    titles = [axes.get_title(loc="left") for axes in drawn.axes]
    assert titles[0].startswith("unroll_length\n")
    labels = drawn.axes[0].get_legend_handles_labels()[1]
    assert {"each trial at 10 steps", "those that went on, at 40 steps", "failed"} <= {*labels}
    drawn.savefig(io.BytesIO())


@pytest.mark.parametrize("most", [1.1e-4, 5e-4, 9e-3])
def test_a_narrow_range_of_a_logarithmic_axis_says_where_it_is(most):
    values = np.geomspace(1e-4, most, 8)
    found = [(Job(i, {IDLE.name: x}, 10), float(i)) for i, x in enumerate(values)]
    (axes,) = (drawn := figure.study_figure([IDLE], found, "return")).axes
    drawn.draw_without_rendering()
    (low, high), ticks = axes.get_xlim(), axes.xaxis.get_major_ticks()
    shown = [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high]
    assert len({*shown} - {""}) >= 2
