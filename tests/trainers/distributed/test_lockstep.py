"""With all actors waited for, a run is that of one HostTrainer, however it is cut and resumed."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from agents_zoo import dqn, impala, ppo, reinforce
from rlws import networks
from rlws.numerics import trees
from rlws.trainers import DeviceTrainer, DistributedTrainer, HostTrainer, Snapshot

MLP = networks.MLP((8,))
STEPS = 400
CASES = {
    "ppo": ppo.Config(backbone=MLP, unroll_length=16, minibatches=2, epochs=2),
    "gru": ppo.Config(
        networks.GRU(size=8), sequence_length=8, unroll_length=16, minibatches=2, epochs=2
    ),
    "reinforce": reinforce.Config(backbone=MLP, episodes_per_update=2),
    "dqn": dqn.Config(
        MLP, prioritised=True, capacity=200, min_size=50, batch_size=8, period=8, updates=2
    ),
    "impala": impala.Config(MLP),  # unrolls, as PPO's, but may come as they do
    "row by row": dqn.Config(MLP, capacity=200, min_size=50, batch_size=8, period=1),
}


@functools.cache
def played(trainer, case, environment="gym:CartPole-v1", stops=(), steps=STEPS):
    """Returns the state of the agent, the returns of all episodes and the counters."""
    saved, returns = None, []
    for looks in (*stops, None):
        asked = iter(range(10**9))
        stop = lambda looks=looks, asked=asked: looks is not None and next(asked) >= looks
        for progress in trainer.train(
            CASES[case],
            environment,
            seed=3,
            steps=steps,
            report_period=97,
            resume=saved,
            stop=stop,
        ):
            if progress.stopped:
                snapshot = progress.snapshot()
                facts = json.loads(json.dumps(snapshot.facts))
                saved = Snapshot(trees.flatten(snapshot.arrays), facts)
                break
            returns += progress.returns.tolist()
        if progress.spent:
            break
    arrays = trees.flatten(progress.snapshot().arrays)
    arrays = {name.removeprefix("run/"): x for name, x in arrays.items()}
    kept = {k: x for k, x in arrays.items() if k.startswith(("state/learner", "state/adder"))}
    return kept, returns, progress[:3], saved


def assert_same(one, other, exact=True):
    assert one[2] == other[2]
    np.testing.assert_allclose(one[1], other[1], rtol=1e-6)
    assert set(one[0]) == set(other[0])
    for name, x in one[0].items():
        if exact:
            np.testing.assert_array_equal(x, other[0][name], err_msg=name)
        else:
            np.testing.assert_allclose(x, other[0][name], rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "row by row",
        *(pytest.param(case, marks=pytest.mark.thorough) for case in ("gru", "reinforce", "dqn")),
        pytest.param("ppo", marks=pytest.mark.exact),
    ],
)
def test_one_actor_is_bitwise_the_host_trainer(case):
    host = played(HostTrainer(num_envs=2), case)
    assert host[2][2] > 3  # updates
    # Learning and acting as one program, or as two, are the same to rounding.
    exact = case != "row by row"
    assert_same(played(DistributedTrainer(num_envs=2, num_actors=1), case), host, exact)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["impala", pytest.param("dqn", marks=pytest.mark.thorough)])
def test_two_actors_are_one_host_trainer_with_all_environments(case):
    # Networks of two rows and of four: the same to rounding.
    host = played(HostTrainer(num_envs=4), case)
    assert_same(played(DistributedTrainer(num_envs=2, num_actors=2), case), host, exact=False)


@pytest.mark.slow
def test_a_block_ahead_is_bitwise_what_overlap_does():
    host = played(HostTrainer(num_envs=2, overlap=True), "ppo")
    ahead = played(DistributedTrainer(num_envs=2, num_actors=1, lookahead=1), "ppo")
    assert_same(ahead, host)


@pytest.mark.thorough
def test_a_learner_on_two_devices_learns_what_one_does():
    """In a process of its own, since devices are made when JAX starts."""
    program = """
        import sys
        sys.path.insert(0, "tests/trainers/distributed")
        from test_lockstep import assert_same, played
        from rlws.trainers import DistributedTrainer
        for case, kept in {"ppo": {}, "impala": dict(wait_for="any")}.items():
            shared = dict(num_envs=2, num_actors=1, **kept)
            one, two = (
                played(DistributedTrainer(num_devices=count, **shared), case) for count in (1, 2)
            )
            assert one[2][2] > 3  # updates
            assert_same(two, one, exact=False)
            print(case)
    """
    flags = os.environ.get("XLA_FLAGS", "")
    environ = os.environ | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=2"}
    environ.pop("RLWS_TEST_RAY", None)
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environ,
        cwd=pathlib.Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.split() == ["ppo", "impala"]


@pytest.mark.slow
def test_actors_with_compiled_environments_are_the_device_trainer():
    one = dict(environment="jax:CartPole-v1", steps=416)
    device = played(DeviceTrainer(num_envs=2), "ppo", **one)
    trainer = DistributedTrainer(num_envs=1, num_actors=2, vectorization="device")
    assert_same(played(trainer, "ppo", **one), device, exact=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "settings"),
    [
        pytest.param("ppo", {"num_actors": 1, "lookahead": 1}, marks=pytest.mark.thorough),
        ("gru", {"num_actors": 2, "lookahead": 2}),
        pytest.param("dqn", {"num_actors": 2}, marks=pytest.mark.thorough),
        pytest.param("reinforce", {"num_actors": 1}, marks=pytest.mark.thorough),
    ],
)
def test_stopped_and_resumed_is_bitwise_the_same(case, settings):
    trainer = DistributedTrainer(num_envs=2, **settings)
    whole = played(trainer, case)
    cut = played(trainer, case, stops=(5, 1))
    assert cut[3] is not None
    assert_same(cut, whole)


@pytest.mark.slow
def test_a_larger_budget_comes_to_what_one_long_run_does():
    trainer = DistributedTrainer(num_envs=2, num_actors=1)
    train = lambda **options: [*trainer.train(CASES["ppo"], "gym:CartPole-v1", seed=3, **options)]
    first = train(steps=200, report_period=150)
    last = first.pop()
    assert 200 <= last.steps < 202
    saved = Snapshot(trees.flatten(last.snapshot().arrays), last.snapshot().facts)
    rest = train(steps=STEPS, report_period=150, resume=saved)
    straight = train(steps=STEPS, report_period=150)
    assert [r[:3] for r in first + rest] == [r[:3] for r in straight]
    np.testing.assert_equal(
        np.concatenate([r.returns for r in first + rest]),
        np.concatenate([r.returns for r in straight]),
    )
    jax.tree.map(np.testing.assert_array_equal, rest[-1].params, straight[-1].params)
