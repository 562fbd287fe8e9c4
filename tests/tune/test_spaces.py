"""Spaces: what is drawn from them, and what is refused."""

import numpy as np
import pytest

from rlws.settings import SettingError
from rlws.tune.spaces import Space, draw, parse_spaces
from tests.commands.toys import TOY

LOG = Space("agent.learning_rate", (), 1e-5, 1e-1, log=True)
WHOLE = Space("agent.epochs", (), 1, 3, whole=True)
CHOICE = Space("agent.unroll_length", (10, 20))


def test_a_place_is_a_value():
    assert LOG.value(0.0) == 1e-5
    assert LOG.value(0.5) == pytest.approx(1e-3)
    assert Space("x", (), 2.0, 4.0).value(0.25) == 2.5
    assert [WHOLE.value(x) for x in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [1, 1, 2, 2, 3, 3]
    assert [CHOICE.value(x) for x in (0.0, 0.49, 0.5, 0.99)] == [10, 10, 20, 20]
    assert (LOG.real, WHOLE.real, CHOICE.real) == (True, False, False)
    assert Space("agent.discount", (0.9, 0.99)).real


def test_spaces_are_parsed_by_the_settings_they_are_of():
    texts = (
        "agent.learning-rate=log:1e-5:1e-2",
        "agent.epochs=1:4",
        "agent.value-clip=0.1:0.3",
        "agent.unroll-length=10,20",
        "agent.backbone.hidden-sizes=8,16x16",
    )
    assert parse_spaces(texts, TOY) == (
        Space("agent.learning_rate", (), 1e-5, 1e-2, log=True),
        Space("agent.epochs", (), 1, 4, whole=True),
        Space("agent.value_clip", (), 0.1, 0.3),
        Space("agent.unroll_length", (10, 20)),
        Space("agent.backbone.hidden_sizes", ((8,), (16, 16))),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent.lr=0.1:1", "Config has no setting 'lr'"),
        ("agent.discount", "--space must be name=log:low:high, name=low:high or name=value,value"),
        ("agent.learning_rate=log:0.1", "--space must be name=log:low:high"),
        ("agent.discount=log:0:1", "low must be greater than 0"),
        ("agent.discount=0.9:0.5", "low must be below high, got '0.9:0.5'; swap them"),
        ("agent.discount=0.9:2", "discount must be at least 0 and at most 1, got 2.0"),
        ("agent.std=a:b", "must be a number, got 'a'"),
        ("agent.epochs=1:2.5", "must be a whole number, got 2.5"),
        ("agent.backbone=mlp,lstn", "--space: agent.backbone: unknown value 'lstn'; did you mean"),
    ],
)
def test_wrong_spaces_are_named(text, message):
    with pytest.raises(SettingError, match=message):
        parse_spaces([text], TOY)


def test_no_space_and_one_twice_are_named():
    with pytest.raises(SettingError, match="--space must say what is searched, got none"):
        parse_spaces([], TOY)
    with pytest.raises(SettingError, match=r"agent\.discount must be given once"):
        parse_spaces(["agent.discount=0.5:0.9", "agent.discount=0.1,0.9"], TOY)


@pytest.mark.parametrize("sobol", [False, True])
def test_draws_are_functions_of_seed_and_number(sobol):
    spaces = LOG, WHOLE, CHOICE
    found = draw(spaces, 16, 3, sobol)
    assert draw(spaces, 16, 3, sobol) == found
    assert draw(spaces, 16, 4, sobol) != found
    assert draw(spaces, 9, 3, sobol) == found[:9]
    assert draw(spaces, 1, 3, sobol) == found[:1] or sobol


def test_sobol_draws_fill_each_space_evenly():
    found = draw([LOG, CHOICE], 16, 0, sobol=True)
    places = np.sort([np.log10(one["agent.learning_rate"]) for one in found])
    np.testing.assert_array_equal((places + 5) * 16 // 4, np.arange(16))
    assert [one["agent.unroll_length"] for one in found].count(10) == 8
