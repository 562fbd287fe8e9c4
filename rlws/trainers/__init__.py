"""Trainers: run an agent in an environment."""

from rlws.trainers.device import DeviceTrainer
from rlws.trainers.host import HostTrainer
from rlws.trainers.trainer import Progress, Trainer

__all__ = ["DeviceTrainer", "HostTrainer", "Progress", "Trainer"]
