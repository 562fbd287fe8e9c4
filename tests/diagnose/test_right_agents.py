"""Agents that are right, of other kinds than the zoo's: none of their parts is called ill.

What they make of problems with known answers `python -m tests.diagnose.healthy` asks.
"""

import pytest

from rlws.diagnose import diagnose
from tests.diagnose.healthy import ALL, PARTS

SOME = ("leave one out",)  # the others: `-m thorough`


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=pytest.mark.slow if x in SOME else pytest.mark.thorough) for x in ALL],
)
def test_the_parts_of_an_agent_that_is_right_are_healthy(name):
    report = diagnose(ALL[name], only=PARTS)
    assert not report.failures, [(check.name, check.got) for check in report.failures]
