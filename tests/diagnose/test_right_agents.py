"""Agents that are right, of other kinds than the zoo's: none is called ill."""

import pytest

from rlws.diagnose import diagnose
from tests.diagnose.right_agents import RIGHT


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
def test_an_agent_that_is_right_is_healthy(name):
    report = diagnose(RIGHT[name], seeds=3)
    assert not report.failures, [(check.name, check.got) for check in report.failures]
