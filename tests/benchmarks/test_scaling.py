"""The calculation of how many workers feed a learner."""

import pytest

from benchmarks.scaling import Load

LOAD = Load(step=5e-3, act=0.0, update=2e-3, params_bytes=0, bandwidth=1e12)


def test_one_worker_takes_its_own_time():
    assert LOAD.play() == pytest.approx(0.1)
    assert LOAD.steps_per_second(1) == pytest.approx(20 / 0.1008, rel=1e-6)


def test_beyond_saturation_the_learner_decides():
    most = LOAD.saturation()
    assert most == pytest.approx(0.1008 / LOAD.learn())
    assert LOAD.steps_per_second(int(most)) < LOAD.steps_per_second(int(most) + 1)
    assert LOAD.steps_per_second(1000) == LOAD.steps_per_second(10_000)
    assert LOAD.steps_per_second(1000) == pytest.approx(20 / LOAD.learn())


def test_waiting_for_each_other_is_never_faster():
    for workers in (1, 4, 64, 1024):
        assert LOAD.steps_per_second(workers, ahead=False) <= LOAD.steps_per_second(workers)
