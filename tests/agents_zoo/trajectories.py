"""Trajectories made by hand."""

import numpy as np

from rlws.types import Trajectory


def trajectory(reward, discount=None, last=None, observation=None, action=None, weight=None):
    """Returns one trajectory of T steps; the step after a last one has weight 0."""
    steps = len(reward)
    last = np.zeros(steps, bool) if last is None else np.array(last, bool)
    first = np.zeros(steps + 1, bool)
    first[2:] = last[:-1]
    ignored = np.append(False, last[:-1])
    return Trajectory(
        observation=np.arange(steps + 1) if observation is None else np.asarray(observation),
        action=np.zeros(steps, np.int32) if action is None else np.asarray(action),
        reward=np.array(reward, np.float32),
        discount=np.ones(steps, np.float32) if discount is None else np.float32(discount),
        weight=np.float32(~ignored if weight is None else weight),
        first=first,
        last=last,
        extras={},
    )
