"""Adders: from a stream of experience to the trajectories a learner asks for."""

from rlws.adders.adder import Adder as Adder
from rlws.adders.adder import Schedule as Schedule
from rlws.adders.episodes import Episodes as Episodes
from rlws.adders.prioritised import PrioritisedReplay as PrioritisedReplay
from rlws.adders.replay import Replay as Replay
from rlws.adders.unrolls import Unrolls as Unrolls
