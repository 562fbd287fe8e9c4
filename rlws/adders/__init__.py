"""Adders: from a stream of experience to the trajectories a learner asks for."""

from rlws.adders.adder import Adder, Schedule
from rlws.adders.episodes import Episodes
from rlws.adders.prioritised import PrioritisedReplay
from rlws.adders.replay import Replay
from rlws.adders.unrolls import Unrolls

__all__ = ["Adder", "Episodes", "PrioritisedReplay", "Replay", "Schedule", "Unrolls"]
