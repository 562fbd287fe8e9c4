"""The doctor: what is wrong with an algorithm that does not learn."""

from rlws.diagnose.check import Check
from rlws.diagnose.doctor import Report, diagnose
from rlws.diagnose.terminal import show

__all__ = ["Check", "Report", "diagnose", "show"]
