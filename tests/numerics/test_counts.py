"""Counts that go round are those of a number, and a run that comes to them counts on."""

import numpy as np
import pytest
from plain import IN_BLOCKS, ROW_BY_ROW

from rlws.numerics import counts, trees
from rlws.trainers import DeviceTrainer, HostTrainer, Snapshot

NEAR = counts.LAST - 3


@pytest.mark.parametrize("begin", [0, 2**30 - 3, NEAR])
def test_a_count_follows_that_of_the_number_before(begin):
    count = np.int32(counts.wrapped(begin))
    for number in range(begin, begin + 8):
        assert count == counts.wrapped(number)
        assert counts.unwrapped(int(count), max(begin, number - 2)) == number
        count = counts.following(count)
        assert count.dtype == np.int32


def test_numbers_of_one_count_are_one_round_apart():
    number = 5 * 2**31 + 17
    assert counts.wrapped(number) == counts.wrapped(number + counts.ROUND)
    assert counts.unwrapped(counts.wrapped(number), number - counts.ROUND + 1) == number


def moved(snapshot, by):
    """Returns a run that has made so many updates more."""
    arrays = dict(snapshot.arrays)
    (name,) = [name for name in arrays if name.endswith("state/learner/updates")]
    arrays[name] = np.int32(arrays[name] + by)
    before = snapshot.facts["updates"]
    updates = [x + by for x in before] if isinstance(before, list) else before + by
    return Snapshot(arrays, {**snapshot.facts, "updates": updates})


@pytest.mark.parametrize("trainer", [HostTrainer(), DeviceTrainer()], ids=["host", "device"])
@pytest.mark.parametrize("config", [IN_BLOCKS, ROW_BY_ROW], ids=["blocks", "rows"])
def test_a_run_counts_updates_beyond_an_int32(trainer, config):
    train = lambda **more: trainer.train(
        config, "jax:CartPole-v1", steps=160, report_period=40, **more
    )
    begun = next(report.snapshot() for report in train() if report.updates > 0)
    begun = begun._replace(arrays=trees.flatten(begun.arrays))
    plain = [report.updates for report in train(resume=begun)]
    by = NEAR - plain[0]
    reports = train(resume=moved(begun, by))
    assert [report.updates for report in reports] == [n + by for n in plain]
    assert plain[-1] + by > counts.LAST
    most = plain[-1] + by - 2
    *_, last = train(resume=moved(begun, by), max_updates=most)
    assert (last.updates, last.halted) == (most, True)
