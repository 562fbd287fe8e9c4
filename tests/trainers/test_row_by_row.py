"""An update after every row, in one dispatch, is what blocks of one row would be."""

import contextlib
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from plain import ROW_BY_ROW
from test_device_faults import Unlucky, said

from agents_zoo import dqn, sac
from rlws import networks
from rlws.environments.checks import AgentFault
from rlws.numerics import sequential, trees
from rlws.settings import SettingError
from rlws.trainers import HostTrainer, Snapshot, host, row_buffer

REPLAY = dict(capacity=200, min_size=50, batch_size=8, period=1)
SMALL = networks.MLP((8,))
CASES = {
    "dqn": (dqn.Config(SMALL, prioritised=True, **REPLAY), "gym:CartPole-v1"),
    "gru": (
        dqn.Config(networks.GRU(size=8), sequence_length=4, burn_in=2, **REPLAY),
        "gym:CartPole-v1",
    ),
    "sac": (sac.Config(SMALL, random_steps=50, **REPLAY), "gym:Pendulum-v1"),
}


@contextlib.contextmanager
def going(how):
    """Has hosts go "row by row", as they do by themselves, or "in blocks"."""
    with pytest.MonkeyPatch.context() as patch:
        if how == "in blocks":
            patch.setattr(host, "_one_dispatch", lambda *_: False)
        yield


def played(trainer, case, parts=("row by row",), steps=300, **how):
    """Returns the arrays at the end, returns and counters of a run in parts, played so."""
    config, environment = CASES[case]
    saved = None
    for i, part in enumerate(parts, 1):
        until = steps * i // len(parts)
        how |= {"steps": until, "resume": saved}
        returns = []  # a snapshot brings those that its last report had
        with going(part):
            for progress in trainer.train(config, environment, seed=3, report_period=10**6, **how):
                returns += progress.returns.tolist()
        snapshot = progress.snapshot()
        facts = json.loads(json.dumps(snapshot.facts))
        saved = Snapshot(trees.flatten(snapshot.arrays), facts)
    arrays = {k: x for k, x in saved.arrays.items() if "ended" not in k}
    return arrays, returns, progress[:3], saved.facts


def assert_same(one, other):
    assert one[2] == other[2]
    assert one[2][2] > 50  # updates
    np.testing.assert_allclose(one[1], other[1], rtol=1e-5)
    assert one[0].keys() == other[0].keys()
    for name, x in one[0].items():
        assert (x.shape, x.dtype) == (other[0][name].shape, other[0][name].dtype)
        np.testing.assert_allclose(x, other[0][name], rtol=1e-3, atol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "num_envs"),
    [
        ("dqn", 1),
        pytest.param("gru", 2, marks=pytest.mark.thorough),
        pytest.param("sac", 1, marks=pytest.mark.thorough),
        pytest.param("sac", 3, marks=pytest.mark.exact),
    ],
)
def test_row_by_row_and_in_blocks_are_one_run(case, num_envs):
    trainer = HostTrainer(num_envs=num_envs)
    one, other = played(trainer, case), played(trainer, case, ("in blocks",))
    assert_same(one, other)
    assert one[3] == other[3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "parts"),
    [
        pytest.param("dqn", ("row by row", "in blocks"), marks=pytest.mark.thorough),
        ("gru", ("row by row", "in blocks")),
        ("sac", ("in blocks", "row by row")),
    ],
)
def test_one_goes_on_where_the_other_stopped(case, parts):
    whole = played(HostTrainer(num_envs=2), case)
    assert_same(whole, played(HostTrainer(num_envs=2), case, parts))


@pytest.mark.slow
def test_rows_of_an_unfinished_block_are_not_lost_unsaid():
    *_, facts = played(HostTrainer(), "dqn", steps=60)
    *_, end = HostTrainer().train(CASES["dqn"][0], "gym:CartPole-v1", seed=3, steps=60)
    saved = Snapshot(trees.flatten(end.snapshot().arrays), facts | {"held": 5})
    with pytest.raises(SettingError, match="stands 5 rows into a block"):
        list(HostTrainer().train(CASES["dqn"][0], "gym:CartPole-v1", steps=90, resume=saved))


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "native"])
def test_environments_stepped_together(vectorization):
    trainer = HostTrainer(num_envs=2, vectorization=vectorization)
    whole = played(trainer, "dqn")
    assert_same(whole, played(trainer, "dqn", ("in blocks",)))


@pytest.mark.slow
def test_it_halts_in_place_of_an_update():
    updates = played(HostTrainer(), "dqn", max_updates=60)[2][2]
    assert updates == 60


SAC = sac.Config(SMALL, min_size=32, capacity=64, batch_size=4, random_steps=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["nan", *(pytest.param(x, marks=pytest.mark.slow) for x in ("discount", "first"))]
)
def test_what_is_wrong_is_named_as_in_blocks(fault):
    found = said(HostTrainer(num_envs=3), ROW_BY_ROW, Unlucky(fault))
    with going("in blocks"):
        assert found == said(HostTrainer(num_envs=3), ROW_BY_ROW, Unlucky(fault))
    assert re.match(r"environment \d, episode \d+, step 3: ", found)


@pytest.mark.slow
def test_an_action_of_nan_is_the_policys_fault(monkeypatch):
    bad = lambda self, params, timestep, state, key: (jnp.float32([jnp.nan]), state, {})
    monkeypatch.setattr(sac.SACActor, "select_action", bad)
    text = said(HostTrainer(), SAC, Unlucky(continuous=True), AgentFault)
    assert text.startswith("policy in environment 0, episode 0, step 1: action must be finite")


@pytest.mark.slow
def test_a_block_in_one_memory_counts_steps(monkeypatch):
    """Rows are looked at only where one is wrong, so the place that is then named must be right."""
    followed = []
    follow = row_buffer.RowBuffer.follow

    def noted(self, action, begun):
        follow(self, action, begun)
        followed.append((self._who(1, 0), *self._rows.timestep.observation[0, 0].tolist()))

    monkeypatch.setattr(row_buffer.RowBuffer, "follow", noted)
    played(HostTrainer(), "dqn", steps=40)
    names = [name for name, *_ in followed]
    assert names[:2] == [f"environment 0, episode 0, step {i}" for i in (1, 2)]
    assert any(name == "environment 0, episode 1, step 1" for name in names)
    assert len({tuple(x) for _, *x in followed}) > 35


def test_what_a_program_returns_is_never_memory_of_its_numpy_arguments():
    """On which `RowByRow` relies: it writes the next timestep where the last one was."""
    raw = np.zeros(2**16 + 64, np.uint8)
    begin = -raw.ctypes.data % 64  # so that JAX may borrow it
    x = raw[begin : begin + 2**16].view(np.float32)
    kept, _ = sequential.sequential(lambda x, y: (x, y + 1), donate_argnums=1)(x, jnp.zeros(3))
    x[:] = 1.0
    assert float(kept.sum()) == 0.0


def test_an_unknown_option_of_the_compiler_is_left_out(monkeypatch):
    sequential._options.cache_clear()
    monkeypatch.setattr(sequential, "_IN_ORDER", {"xla_of_another_time": "true"})
    assert float(sequential.sequential(lambda x: x + 1)(1.0)) == 2.0
    sequential._options.cache_clear()
    monkeypatch.undo()
    assert sequential._options() in (None, sequential._IN_ORDER)
