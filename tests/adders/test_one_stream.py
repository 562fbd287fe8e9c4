"""The table of rlws/adders/README.md: what each adder makes of one and the same stream."""

import jax
import numpy as np
import pytest

from rlws.adders import Episodes, PrioritisedReplay, Replay, Unrolls
from tests.adders.test_replay import KEY, cut, example, last_state, stream, trajectories

pytestmark = pytest.mark.exact

# a0 a1 x b0 x c0 c1 c2 c3, and the row that c3 leads to.
ROWS = stream([("T", [1.0, 2]), ("C", [3.0]), ("U", [4.0, 5, 6, 7])])
C1 = 5 + 0.9 * 6 + 0.81 * 7
MANY = dict(capacity=100, batch_size=4, min_size=1)

# adder: rewards, weights and discounts of its trajectories
HELD = {
    "Replay": (
        Replay(**MANY),
        [[1], [2], [3], [4], [5], [6], [7]],
        [[1]] * 7,
        [[1], [0], [1], [1], [1], [1], [1]],
    ),
    "n_step": (
        Replay(n_step=3, discount=0.9, **MANY),
        [[2.8], [2], [3], [4 + 0.9 * 5 + 0.81 * 6], [C1]],
        [[1]] * 5,
        [[0], [0], [1], [0.81], [0.81]],
    ),
    "length": (
        Replay(length=4, **MANY),
        [[1, 2, 0, 3], [2, 0, 3, 0], [3, 0, 4, 5], [4, 5, 6, 7]],
        [[1, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]],
        [[1, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    ),
    "start_period": (
        Replay(length=3, start_period=2, **MANY),
        [[1, 2, 0], [0, 3, 0], [0, 4, 5], [5, 6, 7]],
        [[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]],
        [[1, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]],
    ),
}


def check(batch, rewards, weights, discounts):
    np.testing.assert_allclose(batch.reward, rewards, rtol=1e-6)
    np.testing.assert_array_equal(batch.weight, weights)
    np.testing.assert_allclose(batch.discount, discounts, rtol=1e-6)


@pytest.mark.parametrize(("adder", "rewards", "weights", "discounts"), HELD.values(), ids=HELD)
def test_replay(adder, rewards, weights, discounts):
    check(trajectories(adder, last_state(adder, ROWS)), rewards, weights, discounts)


def test_prioritised_replay_holds_what_replay_does():
    adder, (_, *expected) = PrioritisedReplay(**MANY), HELD["Replay"]
    check(trajectories(adder, last_state(adder, ROWS).replay), *expected)


def test_unrolls():
    adder, found = Unrolls(3), []
    state = jax.jit(adder.init, static_argnums=1)(example(ROWS), 1)
    add, sample = jax.jit(adder.add), jax.jit(adder.sample)
    for begin in (0, 3, 6):
        following = jax.tree.map(lambda x, t=begin + 3: x[t], ROWS.timestep)
        state = add(state, cut(ROWS, begin, begin + 3), 3, following)
        found.append(sample(state, KEY)[1])
    batch = jax.tree.map(lambda *x: np.concatenate(x), *found)
    check(
        batch,
        [[1, 2, 0], [3, 0, 4], [5, 6, 7]],
        [[1, 1, 0], [1, 0, 1], [1, 1, 1]],
        [[1, 0, 1], [1, 1, 1], [1, 1, 1]],
    )
    # The end of an unroll is the beginning of the next: x leads to the next episode.
    np.testing.assert_array_equal(batch.observation[:-1, -1], batch.observation[1:, 0])


def test_episodes():
    adder = Episodes(2, max_length=3)
    state = jax.jit(adder.init, static_argnums=1)(example(ROWS), 1)
    add, ready = jax.jit(adder.add), jax.jit(adder.ready)
    for begin, length in ((0, 4), (4, 1)):  # the row of the second end is the fifth
        assert not ready(state)
        state = add(state, cut(ROWS, begin, begin + 4), length, None)
    assert ready(state)
    sample = jax.jit(lambda state: adder.sample(state, KEY)[1].masked())
    batch = jax.device_get(sample(state))
    weights = np.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(batch.weight, weights)
    np.testing.assert_array_equal(weights * batch.reward, [[1, 2, 0], [3, 0, 0]])
    np.testing.assert_array_equal(batch.discount[[0, 1], [1, 0]], [0, 1])
