"""Environments on the host, one or many, as a trainer steps them."""

from rlws.trainers.players.making import make_players
from rlws.trainers.players.players import Players, splitter

__all__ = ["Players", "make_players", "splitter"]
