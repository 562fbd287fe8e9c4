"""Environments that misbehave in the process of a worker, once or always."""

import os
import pathlib
import time

import dm_env

from rlws.environments import resolve


class Faulty(dm_env.Environment):
    """CartPole number `index` of a run, with a fault at one of its steps."""

    def __init__(self, seed, index, at, fault, once=None):
        self._inner = resolve.host("gym:CartPole-v1", seed, index)
        self._at, self._fault, self._steps = at, fault, 0
        self._once = None if once is None else pathlib.Path(once) / f"fault-{index}"
        self.max_episode_steps = self._inner.max_episode_steps

    @property
    def episode(self):
        return self._inner.episode

    @episode.setter
    def episode(self, number):
        self._inner.episode = number

    def reset(self):
        return self._inner.reset()

    def step(self, action):
        self._steps += 1
        if self._steps == self._at and not (self._once and self._once.exists()):
            if self._once:
                self._once.touch()
            self._fault()
        return self._inner.step(action)

    def observation_spec(self):
        return self._inner.observation_spec()

    def action_spec(self):
        return self._inner.action_spec()

    def reward_spec(self):
        return self._inner.reward_spec()

    def discount_spec(self):
        return self._inner.discount_spec()

    def close(self):
        self._inner.close()


class Making:
    """Makes faulty environments; can be sent to workers, as a function inside a test cannot."""

    def __init__(self, fault, at=0, where=0, once=None):
        self.fault, self.at, self.where, self.once = fault, at, where, once

    def __call__(self, seed, index):
        here = self.where is None or index == self.where
        if here and not self.at and os.getpid() != DRIVER:
            self.fault()
        return Faulty(seed, index, self.at if here else 0, self.fault, self.once)


DRIVER = int(os.environ.setdefault("RLWS_TEST_DRIVER", str(os.getpid())))


def die():
    os.kill(os.getpid(), 9)


def fail():
    raise LookupError("no more levels")


def hang():
    time.sleep(3600)


def leave():
    os._exit(3)
