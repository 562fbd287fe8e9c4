"""A run of a thousand episodes and hundreds of checkpoints takes no more room than a short one."""

import dataclasses
import os
import threading

import dm_env
import numpy as np
import pytest
from dm_env import specs
from faulty import experiment

from rlws import environments
from rlws.runs import launch
from rlws.runs.experiment import Checkpoints
from rlws.tracking import Sink


class Room(Sink):
    """Takes down what the process holds, at each row."""

    def __init__(self):
        self.taken = []

    def log(self, row):
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        self.taken.append((resident, files, threads))


def room(folder, **changes):
    """Returns the MiB, files and threads at each row of a run, after it got going."""
    seen = Room()
    launch.run(dataclasses.replace(experiment, directory=str(folder), **changes), (seen,))
    return np.array(seen.taken[len(seen.taken) // 4 :])


@pytest.mark.slow
def test_a_long_run_takes_no_more_room(tmp_path, monkeypatch):
    saves, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *names: (saves.append(names), rename(*names)))
    taken = room(tmp_path, steps=10_000, checkpoint=Checkpoints(period=50))
    assert len(saves) >= 2 * 200 - 2  # published, and pruned
    resident, files, threads = taken.T
    assert resident[-20:].mean() - resident[:20].mean() < 20
    assert files.max() == files[0]
    assert threads.max() == threads[0]


class Endless(dm_env.Environment):
    """Its first episode never ends."""

    def observation_spec(self):
        return specs.Array((2,), np.float32)

    def action_spec(self):
        return specs.DiscreteArray(2)

    def reset(self):
        return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
        return dm_env.transition(float(action), np.ones(2, np.float32))


@pytest.mark.slow
def test_an_endless_episode_takes_no_more_room(tmp_path, monkeypatch):
    monkeypatch.setattr("rlws.runs.recorder.Recorder._evaluation", lambda *_: dict)
    environments.register("faulty:endless", Endless)
    agent = dataclasses.replace(experiment.agent, unroll_length=500)
    kept = Checkpoints(period=8_000)
    changes = dict(environment="faulty:endless", agent=agent, checkpoint=kept)
    resident = room(tmp_path, steps=40_000, **changes)[:, 0]
    assert resident[-20:].mean() - resident[:20].mean() < 20
