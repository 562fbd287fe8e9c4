"""An environment that does what it should not, and runs in it that take a second.

In a process: `rlws run tests/faults/faulty.py --environment faulty:raises`.
"""

import json
import os
import sys
import time

import dm_env
import numpy as np
from dm_env import StepType, specs

from agents_zoo import ppo
from rlws import environments, networks
from rlws.commands.cli import main
from rlws.numerics import checkpoint, streams, trees
from rlws.runs.experiment import Checkpoints, Evaluation, Experiment

LENGTH = 10  # steps of an episode
AT = (0, 3, 5, LENGTH)  # steps at which faults happen; 3 by default, 5 begins a block
MEASURED = {"seconds", "steps_per_second", "peak_memory_mb"}


class Faulty(dm_env.Environment):
    """Does something to a timestep of its second episode."""

    max_episode_steps = LENGTH
    healthy = bool(os.getenv("RLWS_HEALTHY"))
    closed = 0  # environments, of all

    def __init__(self, fault, at, seed=0, index=0):
        self._fault, self._at, self._who = fault, at, (seed, streams.Stream.ENVIRONMENT, index)
        self.episode, self._time = 0, None

    def observation_spec(self):
        return {
            "body": specs.BoundedArray((3,), np.float32, -1, 1, "body"),
            "time": specs.Array((), np.int32, "time"),
        }

    def action_spec(self):
        return specs.DiscreteArray(2)

    def reset(self):
        seed = streams.host_seed(*self._who, self.episode)
        self._rng = np.random.default_rng(seed)
        self.episode, self._time = self.episode + 1, 0
        return self._touched(dm_env.restart(self._observation()))

    def step(self, action):
        if self._time is None:
            return self.reset()
        self._time += 1
        end = dm_env.termination if self._time == LENGTH else dm_env.transition
        reward = float(action == self._time % 2)
        timestep = self._touched(end(reward, self._observation()))
        if self._time == LENGTH:
            self._time = None
        return timestep

    def close(self):
        Faulty.closed += 1

    def _observation(self):
        body = self._rng.uniform(-1, 1, 3).astype(np.float32)
        return {"body": body, "time": np.int32(self._time)}

    def _touched(self, timestep):
        if self.healthy or (self.episode, self._time) != (2, self._at):
            return timestep
        return self._fault(timestep)


def shown(**changes):
    """Returns a fault: other observations."""
    return lambda x: x._replace(observation={**x.observation, **changes})


def said(**changes):
    """Returns a fault: other entries of the timestep."""
    return lambda x: x._replace(**changes)


def fail(error):
    """Returns a fault: an error like this."""

    def fault(_):
        raise type(error)(*error.args)

    return fault


NAN, NUMBERS = float("nan"), np.zeros(3, np.float32)
FAULTS = {
    "none": lambda x: x,
    "nan": shown(body=np.float32([0, NAN, 0])),
    "infinity": shown(body=np.float32([0, np.inf, 0])),
    "nan reward": said(reward=NAN),
    "infinite reward": said(reward=np.inf),
    "nan discount": said(discount=NAN),
    "discount 1.1": said(discount=1.1),
    "discount -0.1": said(discount=-0.1),
    "one number": shown(body=np.zeros(1, np.float32)),
    "a scalar": shown(body=np.float32(0)),
    "one row": shown(body=NUMBERS[None]),
    "four numbers": shown(body=np.zeros(4, np.float32)),
    "a list": shown(body=[0.0, 0.0, 0.0]),
    "3.7 for 3": shown(time=np.float32(3.7)),
    "2 ** 40": shown(time=np.int64(2**40)),
    "a key too many": shown(more=np.float32(0)),
    "a key too few": said(observation={"body": NUMBERS}),
    "another key": said(observation={"body": NUMBERS, "timer": np.int32(0)}),
    "no dict": said(observation=NUMBERS),
    "no reward": said(reward=None),
    "two rewards": said(reward=np.zeros(2)),
    "first": said(step_type=StepType.FIRST),
    "mid": said(step_type=StepType.MID),
    "last": said(step_type=StepType.LAST),
    "step type 7": said(step_type=7),
    "gymnasium": lambda x: (x.observation, 0.0, False, False, {}),
    "nothing": lambda x: None,
    "raises": fail(ValueError("broken joint")),
    "exits": fail(SystemExit(0)),
    "sleeps": lambda x: time.sleep(60),
    "drifts": lambda x: shown(body=np.float32([0, 0, time.monotonic() % 1]))(x),
}

for name, fault in FAULTS.items():
    for at in AT:

        def make(seed=0, index=0, fault=fault, at=at):
            return Faulty(fault, at, seed, index)

        environments.register(f"faulty:{name}" + f" at {at}" * (at != AT[1]), make)


class Unseeded(Faulty):
    """Draws anew where it should repeat."""

    def reset(self):
        timestep = super().reset()
        self._rng = np.random.default_rng()
        return timestep


environments.register("faulty:unseeded", lambda seed=0: Unseeded(FAULTS["none"], AT[1], seed))

experiment = Experiment(
    name="faulty",
    environment="faulty:none",
    agent=ppo.Config(networks.MLP((4,)), unroll_length=8, minibatches=1, epochs=1),
    steps=60,
    evaluation=Evaluation(episodes=1),
    checkpoint=Checkpoints(period=5),
    quiet=True,
)


def play(folder, *flags):
    """Runs the experiment in a folder, or goes on with it; returns the summary."""
    return main(experiment, ["--directory", str(folder), "--resume", *flags])


def refused(capfd, folder, *flags):
    """Does as `play`, which must fail; returns the status and the last line of what it says."""
    try:
        play(folder, *flags)
    except SystemExit as end:
        return end.code, capfd.readouterr().err.splitlines()[-1]
    raise AssertionError("it went on")


def left(folder):
    """Returns all about a run in a folder that must not depend on how often it was ended."""
    from processes import rows

    found = checkpoint.newest(folder / "checkpoints", fail_on)
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "step": found.facts["step"],
        "arrays": trees.digest(found.arrays),
        "rows": rows(folder),
        "summary": {k: v for k, v in summary.items() if k not in MEASURED},
    }


def fail_on(text):
    """Takes a warning for a failure."""
    raise AssertionError(text)


if __name__ == "__main__":
    main(experiment, sys.argv[1:])
