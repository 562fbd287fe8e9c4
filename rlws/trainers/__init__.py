"""Trainers: what steps environments, and turns the cycle of acting, adding and learning."""

from rlws.trainers.device import DeviceTrainer
from rlws.trainers.distributed.trainer import DistributedTrainer
from rlws.trainers.host import HostTrainer
from rlws.trainers.trainer import Member, Progress, Snapshot, Trainer

__all__ = [
    "DeviceTrainer",
    "DistributedTrainer",
    "HostTrainer",
    "Member",
    "Progress",
    "Snapshot",
    "Trainer",
]
