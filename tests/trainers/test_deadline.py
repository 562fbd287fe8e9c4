"""Environments that crash or do not answer: which one it was, and where."""

import signal
import sys
import time

import dm_env
import numpy as np
import pytest
from dm_env import specs
from plain import IN_BLOCKS

from rlws.environments.checks import EnvironmentFault
from rlws.numerics import trees
from rlws.trainers import HostTrainer, Snapshot
from rlws.trainers.deadline import deadline


class Broken(dm_env.Environment):
    """Does something at its seventh step."""

    def __init__(self, at_seventh):
        self._at_seventh, self._steps, self.closed = at_seventh, 0, 0

    def observation_spec(self):
        return specs.Array((2,), np.float32)

    def action_spec(self):
        return specs.DiscreteArray(2)

    def reset(self):
        return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
        self._steps += 1
        if self._steps == 7:
            self._at_seventh()
        return dm_env.transition(1.0, np.zeros(2, np.float32))

    def close(self):
        self.closed += 1


def train(at_seventh, timeout=600.0):
    """Trains two environments, of which the second is broken."""
    made = []

    def make(seed, index):
        made.append(Broken(at_seventh if index else lambda: None))
        return made[-1]

    trainer = HostTrainer(num_envs=2, environment_timeout=timeout)
    try:
        for _ in trainer.train(IN_BLOCKS, make, steps=40):
            pass
    finally:
        assert [env.closed for env in made] == [1, 1]


def test_one_that_hangs_is_named():
    with pytest.raises(
        EnvironmentFault, match=r"environment 1, episode 0, step 7 must .*=0\.2 s"
    ) as e:
        train(lambda: time.sleep(60), 0.2)
    assert e.value.status == 4


def test_one_that_is_slow_but_in_time_is_left_alone():
    train(lambda: time.sleep(0.3), 2.0)


def test_one_that_raises_is_named_with_its_own_error():
    def fail():
        raise ValueError("broken joint")

    with pytest.raises(ValueError, match="broken joint") as error:
        train(fail)
    assert error.value.__notes__ == ["environment 1, episode 0, step 7, after 13 steps of all"]


def test_one_that_exits_does_not_end_the_run_as_if_all_were_well():
    with pytest.raises(EnvironmentFault, match="environment 1, episode 0, step 7 must not exit"):
        train(sys.exit)


def test_time_between_calls_does_not_count():
    with deadline(0.1, lambda: None):
        time.sleep(0.5)


def test_one_that_answers_just_in_time_is_not_interrupted():
    answers = iter([("it", 0)] * 3)  # and then no more
    with deadline(0.1, lambda: next(answers, None)):
        time.sleep(0.6)


def test_a_run_left_in_the_middle_does_not_disarm_the_next():
    left = HostTrainer().train(IN_BLOCKS, lambda seed, index: Broken(lambda: None), steps=40)
    next(left)
    test_one_that_hangs_is_named()
    left.close()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_one_deadline_within_another_leaves_it_as_it_was():
    def wait():
        with deadline(0.2, lambda: hung):
            with deadline(600.0, lambda: None):
                pass
            time.sleep(60)

    hung = "outer", 0
    with pytest.raises(EnvironmentFault, match="outer must answer"):
        wait()
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


class Replayed(Broken):
    """Can be played again, and goes wrong when it is: in its second reset."""

    def __init__(self, at_reset):
        super().__init__(lambda: None)
        self._at_reset, self._resets, self.episode = at_reset, 0, 0

    def reset(self):
        self._resets, self.episode = self._resets + 1, self.episode + 1
        if self._resets == 2:
            self._at_reset()
        return super().reset()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: time.sleep(60), "environment 0, episode 0, step 0 must answer"),
        (lambda: sys.exit(0), "environment 0, episode 0, step 0 must not exit"),
    ],
    ids=["hangs", "exits"],
)
def test_one_that_goes_wrong_while_it_is_played_again_is_named(what, says):
    make, trainer = lambda seed, index: Replayed(what), HostTrainer(environment_timeout=0.2)
    *_, last = trainer.train(IN_BLOCKS, make, steps=5)
    saved = last.snapshot()
    saved = Snapshot(trees.flatten(saved.arrays), saved.facts)
    with pytest.raises(EnvironmentFault, match=says):
        list(trainer.train(IN_BLOCKS, make, steps=40, resume=saved))


def test_an_alarm_of_others_is_left_to_them():
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    try:
        with deadline(600.0, lambda: None):
            assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGALRM, before)
