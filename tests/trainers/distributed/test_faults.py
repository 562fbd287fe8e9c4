"""Workers that die, fail or hang: replaced and counted, or named; never waited for in vain."""

import contextlib
import os
import pathlib
import signal
import time

import numpy as np
import pytest

from agents_zoo import impala, ppo
from rlws import networks
from rlws.environments.checks import EnvironmentFault
from rlws.numerics import trees
from rlws.settings import SettingError
from rlws.trainers import DistributedTrainer
from rlws.trainers.distributed import workers
from rlws.trainers.distributed.workers import WorkerLost
from tests.trainers.distributed.toys import Making, die, fail, hang, leave

MLP = networks.MLP((8,))
PPO = ppo.Config(backbone=MLP, unroll_length=16, minibatches=2, epochs=2)
TIMEOUT = 30.0  # beyond what a worker takes to begin on a busy machine
TRAINER = DistributedTrainer(num_envs=2, num_actors=2)


def run(environment, trainer=TRAINER, config=PPO, steps=400):
    reports = [*trainer.train(config, environment, seed=3, steps=steps, report_period=100)]
    returns = [x for report in reports for x in report.returns]
    return reports[-1], returns, max(r.metrics.get("worker_restarts", 0) for r in reports)


@pytest.fixture(scope="module")
def in_peace():
    return run(Making(die, at=10**9, where=None))


@pytest.mark.thorough  # five kills at random, and then of all, are below
def test_workers_killed_all_at_once_are_replaced_and_leave_no_trace(tmp_path, in_peace):
    killed = run(Making(die, at=37, where=None, once=tmp_path))
    assert killed[2] >= 2
    assert in_peace[2] == 0
    assert killed[0][:3] == in_peace[0][:3]
    assert killed[1] == in_peace[1]
    one, other = (trees.flatten(r[0].snapshot().arrays) for r in (killed, in_peace))
    same = lambda arrays: trees.digest({k: x for k, x in arrays.items() if "totals" not in k})
    assert same(one) == same(other)


@pytest.mark.slow
def test_budget_is_kept_where_blocks_come_as_they_do_and_workers_die(tmp_path):
    trainer = DistributedTrainer(num_envs=2, num_actors=2, wait_for="any", lookahead=1)
    making = Making(leave, at=50, where=None, once=tmp_path)
    last, _, restarts = run(making, trainer, impala.Config(MLP), 600)
    assert 600 <= last.steps < 602
    assert restarts >= 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", [die, fail])
def test_what_never_begins_ends_the_run_and_says_why(fault):
    trainer = DistributedTrainer(num_envs=2, num_actors=1)
    with pytest.raises(WorkerLost, match=r"worker 0 failed 3 times in a row") as error:
        run(Making(fault, where=None), trainer)
    assert error.value.status == 8
    if fault is fail:
        assert "LookupError: no more levels" in str(error.value)
        assert "in fail" in error.value.__notes__[0]


@pytest.mark.slow
def test_what_an_environment_raises_comes_through_with_its_place():
    with pytest.raises(LookupError, match="no more levels") as error:
        run(Making(fail, at=20, where=3))
    notes = "\n".join(error.value.__notes__)
    assert "in worker 1" in notes
    assert "environment 1" in notes


@pytest.mark.slow
def test_an_environment_that_hangs_is_named():
    trainer = DistributedTrainer(num_envs=2, num_actors=2, environment_timeout=TIMEOUT)
    with pytest.raises(
        EnvironmentFault, match=r"worker 1: environment 0.* environment_timeout=30 s"
    ):
        run(Making(hang, at=20, where=2), trainer)


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_replaced(monkeypatch, ray):
    monkeypatch.setattr(workers, "PATIENCE", 2.0)
    trainer = DistributedTrainer(num_envs=2, num_actors=1, environment_timeout=TIMEOUT)
    stopped, restarts = 0, 0
    for report in trainer.train(PPO, "gym:CartPole-v1", steps=3000, report_period=100):
        restarts = report.metrics.get("worker_restarts", restarts)
        if report.steps and not stopped:
            (stopped,) = workers_alive()
            os.kill(stopped, signal.SIGSTOP)
    assert restarts == 1
    assert report.spent


def test_wrong_environments_are_not_tried_again():
    with pytest.raises(SettingError, match="CartPole-v9"):
        run("gym:CartPole-v9")


def workers_alive():
    """Returns the processes of our workers that play."""
    found, tag = [], os.environ["RLWS_TEST_RAY"].encode()
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cmdline").read_bytes().startswith(b"ray::Worker"):
                found += [int(path.name)] * (tag in (path / "environ").read_bytes())
    return found


@pytest.mark.slow
def test_five_kills_at_random_and_then_of_all_leave_no_trace():
    def play(kill):
        rng, kills, lost, rows = np.random.default_rng(0), 0, 0, []
        for report in TRAINER.train(PPO, "gym:CartPole-v1", seed=3, steps=12_000, report_period=99):
            rows.append((*report[:3], *report.returns))
            lost = report.metrics.get("worker_restarts", lost)  # of a report with updates
            # The next only once the last is made good, or it would come for nothing.
            if kill and report.steps and lost == min(kills, 5) and kills < 6:
                alive = workers_alive()
                chosen = alive if kills == 5 else [int(rng.choice(alive))]
                time.sleep(rng.uniform(0.0, 0.02))
                for pid in chosen:
                    os.kill(pid, signal.SIGKILL)
                kills += 1
        arrays = trees.flatten(report.snapshot().arrays)
        kept = {k: x for k, x in arrays.items() if "totals" not in k}
        return rows, trees.digest(kept), lost

    whole, killed = play(False), play(True)
    assert killed[2] == 7  # five, and both at once
    assert whole[2] == 0
    assert killed[:2] == whole[:2]  # counters and returns of every report, the whole state
    steps = [row[0] for row in killed[0]]
    assert steps == sorted(set(steps))
    assert 12_000 <= steps[-1] < 12_004
