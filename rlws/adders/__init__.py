"""Adders: from a stream of experience to the trajectories a learner asks for."""

from rlws.adders.adder import Adder
from rlws.adders.episodes import Episodes

__all__ = ["Adder", "Episodes"]
