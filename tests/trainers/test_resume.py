"""A run that was stopped and resumed, however often, is the run that was not."""

import json
from functools import partial

import numpy as np
import pytest

from agents_zoo import dqn, ppo, reinforce, sac
from rlws import networks
from rlws.numerics import trees
from rlws.trainers import DeviceTrainer, HostTrainer, Member, Snapshot, device

MLP = networks.MLP((8,))
STEPS = 400
REPLAY = dict(backbone=MLP, capacity=200, min_size=50, batch_size=8)
UNROLLS = dict(unroll_length=16, minibatches=2, epochs=2)
GRU = dict(backbone=networks.GRU(size=8), sequence_length=8)
CASES = {
    "reinforce": (reinforce.Config(backbone=MLP, episodes_per_update=2), "jax:CartPole-v1"),
    "ppo": (ppo.Config(backbone=MLP, **UNROLLS), "jax:CartPole-v1"),
    "gru": (ppo.Config(**GRU, **UNROLLS), "jax:CartPole-v1"),
    "dqn": (dqn.Config(prioritised=True, **REPLAY), "jax:CartPole-v1"),
    "dqn in blocks": (dqn.Config(period=4, **REPLAY), "jax:CartPole-v1"),
    "sac": (sac.Config(random_steps=50, **REPLAY), "gym:Pendulum-v1"),
}
HOST, DEVICE = HostTrainer(num_envs=2), DeviceTrainer(num_envs=2)


@pytest.fixture(autouse=True, scope="module")
def short_chunks():
    """So that a device looks at `stop` more often than it reports; no program depends on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "PACE", 16)
        yield


def stop_after(looks):
    """Returns a `stop` that says so from this look on; None: never."""
    done = iter(range(10**9))
    return lambda: looks is not None and next(done) >= looks


def through_disk(snapshot):
    """Returns a snapshot as it is when it was written and read."""
    facts = json.loads(json.dumps(snapshot.facts))
    return Snapshot(trees.flatten(snapshot.arrays), facts)


def played(trainer, case, stops=(), report_period=97):
    """Returns digest, counters and reports of a run that is stopped and resumed again and again."""
    config, environment = CASES[case]
    saved, reports = None, []
    for looks in (*stops, None):
        for progress in trainer.train(
            config,
            environment,
            seed=3,
            steps=STEPS,
            report_period=report_period,
            resume=saved,
            stop=stop_after(looks),
        ):
            if progress.stopped:
                saved = through_disk(progress.snapshot())
                break
            reports.append((*progress[:3], progress.returns.tolist(), progress.metrics))
        if progress.spent:
            break
    return digest_of(progress), progress[:3], reports, saved


def digest_of(progress):
    """Returns that of all that does not depend on when reports were made."""
    arrays = trees.flatten(progress.snapshot().arrays)
    kept = {k: x for k, x in arrays.items() if "totals" not in k and "ended" not in k}
    return trees.digest(kept)


@pytest.mark.parametrize(
    ("case", "trainer"),
    [
        *(("reinforce", HOST), ("dqn in blocks", HOST)),
        pytest.param("dqn", HOST, marks=pytest.mark.exact),
        pytest.param("dqn", DEVICE, marks=pytest.mark.slow),
        pytest.param("ppo", DEVICE, marks=[pytest.mark.slow, pytest.mark.exact]),
        *(pytest.param(case, HOST, marks=pytest.mark.slow) for case in ("gru", "sac")),
        pytest.param("ppo", HOST, marks=pytest.mark.thorough),
        *(pytest.param(case, DEVICE, marks=pytest.mark.thorough) for case in ("reinforce", "gru")),
        pytest.param("dqn", HostTrainer(), marks=pytest.mark.thorough),
        pytest.param("ppo", HostTrainer(overlap=True), marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_bitwise_the_same(case, trainer):
    digest, counters, reports, _ = played(trainer, case)
    stops = (0, 1, 0) if isinstance(trainer, DeviceTrainer) else (37, 90, 3, 41)
    found = played(trainer, case, stops)
    assert found[3] is not None
    assert found[:2] == (digest, counters)
    np.testing.assert_equal(found[2], reports)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [HOST, DEVICE], ids=["host", "device"])
def test_reports_change_nothing(trainer):
    assert played(trainer, "ppo", (5, 2), 13)[:2] == played(trainer, "ppo")[:2]


@pytest.mark.slow
def test_a_run_whose_keys_are_not_resumed_is_another():
    # What the equalities above would not notice if no action were random.
    digest, *_ = played(HOST, "ppo")
    config, environment = CASES["ppo"]
    *_, other = HOST.train(config, environment, seed=4, steps=STEPS)
    assert digest_of(other) != digest


@pytest.mark.exact
# A block ends there, or is cut.
@pytest.mark.parametrize("first", [pytest.param(96, marks=pytest.mark.slow), 200])
@pytest.mark.parametrize("trainer", [HOST, DEVICE], ids=["host", "device"])
def test_a_larger_budget_comes_to_what_one_long_run_does(trainer, first):
    config, environment = CASES["ppo"]
    train = partial(trainer.train, config, environment, seed=3, report_period=150)
    reports = [*train(steps=first)]
    saved = through_disk(reports.pop().snapshot())
    # With the same budget the last report comes once more.
    (again,) = train(steps=first, resume=saved)
    assert again.steps == saved.facts["steps"][0] if trainer is DEVICE else again.spent
    reports += train(steps=STEPS, resume=saved)
    straight = [*train(steps=STEPS)]
    assert len(reports) == len(straight) == 4
    for one, other in zip(reports, straight, strict=True):
        assert one[:3] == other[:3]
        np.testing.assert_equal(one.returns, other.returns)
        np.testing.assert_equal(one.metrics, other.metrics)
    assert digest_of(reports[-1]) == digest_of(straight[-1])


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [HOST, DEVICE], ids=["host", "device"])
def test_a_member_goes_on_as_a_run_by_itself(trainer):
    config, environment = CASES["ppo"]
    members = [Member(3, {"learning_rate": rate}) for rate in (1e-4, 1e-3)]
    ended = {}
    for batch in trainer.train_all(config, environment, members, steps=200):
        for i, report in batch.items():
            if report.spent:
                ended[i] = through_disk(trainer.member(report.snapshot(), i))
    whole = {}
    for batch in trainer.train_all(config, environment, members, steps=STEPS):
        whole |= {i: report for i, report in batch.items() if report.spent}
    for i, member in enumerate(members):
        for batch in trainer.train_all(config, environment, [member], steps=STEPS, resume=ended[i]):
            (report,) = batch.values()
        assert report[:3] == whole[i][:3]
        one, other = (
            trees.flatten(trainer.member(r.snapshot(), 0 if r is report else i).arrays)
            for r in (report, whole[i])
        )
        assert set(one) == set(other)
        for name in one:
            if "totals" not in name and "ended" not in name:
                # Vmapped on the device, sums may come in another order.
                np.testing.assert_allclose(
                    one[name], other[name], rtol=2e-4, atol=2e-5, err_msg=name
                )
