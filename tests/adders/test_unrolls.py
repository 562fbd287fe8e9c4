"""The Unrolls adder: a stream of episodes in, batches of the very same steps out."""

import functools
import itertools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType

from rlws.adders import Schedule, Unrolls
from rlws.settings import SettingError
from rlws.types import Row

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST
KEY = jax.random.key(0)


def play(ends):
    """Returns the rows of episodes such as "T3 C1 U4", as (step type, discount, name).

    T: terminated after so many steps, C: cut by a time limit, U: still under way. A name is
    10 * episode + step.
    """
    for episode, (kind, *digits) in enumerate(ends.split()):
        steps = int("".join(digits))
        yield F, 1, 10 * episode
        for t in range(1, steps + 1):
            end = t == steps and kind != "U"
            yield L if end else M, 1 - (end and kind == "T"), 10 * episode + t


def stream(*environments, rows=None):
    """Returns rows [T, B]. Observations, rewards, actions and extras tell name and environment."""
    columns = [list(play(ends))[:rows] for ends in environments]
    step_type, discount, name = np.array(columns).transpose(2, 1, 0)
    name = 1000 * np.arange(len(environments)) + name
    reward = np.where(step_type == F, 0, name + 0.5)
    pair = np.stack([name, -name], axis=-1).astype(np.float32)
    observation = {"o": pair, "n": name.astype(np.int8)}
    timestep = dm_env.TimeStep(
        step_type.astype(np.int32), np.float32(reward), np.float32(discount), observation
    )
    return Row(timestep, name.astype(np.int32), {"e": np.float32(name + 0.25)})


@functools.cache
def compiled(adder):
    return jax.jit(adder.add), jax.jit(adder.sample)


def batches(adder, rows):
    """Yields the batch after each whole unroll of the stream."""
    add, sample = compiled(adder)
    num_envs, length = rows.action.shape[1], adder.length
    state = adder.init(jax.tree.map(lambda x: jnp.asarray(x[0, 0]), rows), num_envs)
    assert not adder.ready(state)
    for begin in range(0, len(rows.action) - length, length):
        block = jax.tree.map(lambda x, t=begin: x[t : t + length], rows)
        timestep = jax.tree.map(lambda x, t=begin: x[t + length], rows.timestep)
        state = add(state, block, length, timestep)
        assert adder.ready(state)
        state, batch = sample(state, KEY)
        assert not adder.ready(state)
        yield jax.device_get(batch)


# name: (length, environments, then for each batch and environment:
#   the names of T + 1 observations, weights of T steps, discounts, ends)
CASES = {
    "termination": (3, ["T3 U3"], [
        [([0, 1, 2, 3], [1, 1, 1], [1, 1, 0], [0, 0, 1])],
        [([3, 10, 11, 12], [0, 1, 1], [1, 1, 1], [0, 0, 0])],
    ]),
    "truncation": (3, ["C3 U3"], [
        [([0, 1, 2, 3], [1, 1, 1], [1, 1, 1], [0, 0, 1])],
        [([3, 10, 11, 12], [0, 1, 1], [1, 1, 1], [0, 0, 0])],
    ]),
    "ends inside": (4, ["T2 C1 U3"], [
        [([0, 1, 2, 10, 11], [1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1])],
        [([11, 20, 21, 22, 23], [0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0])],
    ]),
    "one-step episodes": (4, ["T1 C1 T1 C1 U1"], [
        [([0, 1, 10, 11, 20], [1, 0, 1, 0], [0, 1, 1, 1], [1, 0, 1, 0])],
        [([20, 21, 30, 31, 40], [1, 0, 1, 0], [0, 1, 1, 1], [1, 0, 1, 0])],
    ]),
    "longer than an unroll": (2, ["T5 U1"], [
        [([0, 1, 2], [1, 1], [1, 1], [0, 0])],
        [([2, 3, 4], [1, 1], [1, 1], [0, 0])],
        [([4, 5, 10], [1, 0], [0, 1], [1, 0])],
    ]),
    "unrolls of one step": (1, ["C2 U0"], [
        [([0, 1], [1], [1], [0])],
        [([1, 2], [1], [1], [1])],
        [([2, 10], [0], [1], [0])],
    ]),
    "two environments": (3, ["T3 U3", "U7"], [
        [
            ([0, 1, 2, 3], [1, 1, 1], [1, 1, 0], [0, 0, 1]),
            ([1000, 1001, 1002, 1003], [1, 1, 1], [1, 1, 1], [0, 0, 0]),
        ],
        [
            ([3, 10, 11, 12], [0, 1, 1], [1, 1, 1], [0, 0, 0]),
            ([1003, 1004, 1005, 1006], [1, 1, 1], [1, 1, 1], [0, 0, 0]),
        ],
    ]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_unrolls_follow_the_table(case):
    length, environments, expected = case
    found = list(batches(Unrolls(length), stream(*environments)))
    assert len(found) == len(expected)
    for batch, items in zip(found, expected, strict=True):
        names, weight, discount, last = (np.array(x) for x in zip(*items, strict=True))
        same = np.testing.assert_array_equal
        same(batch.observation["o"], np.stack([names, -names], axis=-1))
        same(batch.observation["n"], names.astype(np.int8))
        same(batch.action, names[:, :-1])
        same(batch.extras["e"], names[:, :-1] + 0.25)
        same(batch.weight, weight)
        same(batch.discount, discount)
        same(batch.last, last)
        first = names % 10 == 0
        same(batch.first, first)
        same(batch.reward, np.where(first[:, 1:], 0, names[:, 1:] + 0.5))


def test_unrolls_keep_types():
    (batch, *_) = batches(Unrolls(2), stream("T3 U3"))
    dtypes = jax.tree.map(lambda x: x.dtype.type, batch)
    assert dtypes.observation == {"o": np.float32, "n": np.int8}
    assert (dtypes.action, dtypes.reward, dtypes.weight) == (np.int32, np.float32, np.float32)
    assert dtypes.first == dtypes.last == np.bool_


@pytest.mark.parametrize(("length", "num_envs"), [(1, 1), (4, 3), (7, 2), (32, 5)])
def test_unrolls_hold_each_step_of_a_random_stream_once(length, num_envs):
    rng = np.random.default_rng(length)
    episodes = lambda: [f"{rng.choice(['T', 'C'])}{n}" for n in rng.integers(1, 10, 99)]
    rows = stream(*(" ".join(episodes()) for _ in range(num_envs)), rows=3 * 32 + 1)
    found = list(batches(Unrolls(length), rows))
    assert len(found) == 96 // length
    experience = rows.timestep.step_type[: len(found) * length] != L
    names = [batch.action[batch.weight > 0] for batch in found]
    taken = rows.action[: len(found) * length][experience]
    np.testing.assert_array_equal(np.sort(np.concatenate(names)), np.sort(taken))
    for before, after in itertools.pairwise(found):
        jax.tree.map(
            lambda x, y: np.testing.assert_array_equal(x[:, -1], y[:, 0]),
            before.observation,
            after.observation,
        )
    # Rewards are those of the steps: none is dropped at an end, none counted twice.
    reward = sum((batch.weight * batch.reward).sum(dtype=float) for batch in found)
    assert reward == rows.timestep.reward[1 : len(found) * length + 1].sum(dtype=float)


@pytest.mark.parametrize("taken", [False, True], ids=["a batch waits", "none waits"])
def test_unrolls_length_0_adds_nothing(taken):
    adder, rows = Unrolls(3), stream("T3 U9")
    add, sample = compiled(adder)
    state = adder.init(jax.tree.map(lambda x: jnp.asarray(x[0, 0]), rows), 1)
    at = lambda begin: jax.tree.map(lambda x: x[begin : begin + 3], rows)
    timestep = lambda t: jax.tree.map(lambda x: x[t], rows.timestep)
    state = add(state, at(0), 3, timestep(3))
    if taken:
        state = sample(state, KEY)[0]
    for length in (0, jnp.int32(0)):
        after = add(state, at(5), length, timestep(8))
        jax.tree.map(np.testing.assert_array_equal, after, state)
    assert adder.ready(after) != taken


def test_unrolls_ask_for_blocks_of_their_length():
    assert Unrolls(5).schedule(1) == Unrolls(5).schedule(8) == Schedule(block_length=5, updates=1)


def test_unrolls_settings_are_checked():
    with pytest.raises(SettingError, match=r"Unrolls\.length must be at least 1, got 0"):
        Unrolls(0)


def test_unrolls_under_vmap_are_each_alone():
    adder, streams = Unrolls(4), [stream("T2 C1 U9"), stream("C5 U9")]
    streams = [jax.tree.map(lambda x: x[:5], rows) for rows in streams]

    def run(rows):
        state = adder.init(jax.tree.map(lambda x: x[0, 0], rows), 1)
        block, timestep = jax.tree.map(lambda x: x[:4], rows), rows.timestep
        state = adder.add(state, block, 4, jax.tree.map(lambda x: x[4], timestep))
        return adder.sample(state, KEY)

    together = jax.jit(jax.vmap(run))(jax.tree.map(lambda *x: np.stack(x), *streams))
    alone = [jax.jit(run)(rows) for rows in streams]
    jax.tree.map(lambda x, *y: np.testing.assert_array_equal(x, np.stack(y)), together, *alone)
