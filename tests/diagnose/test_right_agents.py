"""Agents that are right, of other kinds than the zoo's: none of their parts is called ill.

What they make of problems with known answers `python -m tests.diagnose.healthy` asks.
"""

import pytest

from rlws.diagnose import diagnose
from tests.diagnose.healthy import PARTS
from tests.diagnose.right_agents import RIGHT


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_the_parts_of_an_agent_that_is_right_are_healthy(name):
    report = diagnose(RIGHT[name], only=PARTS)
    assert not report.failures, [(check.name, check.got) for check in report.failures]
