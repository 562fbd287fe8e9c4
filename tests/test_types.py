"""Trajectories: rows in, steps out, and nothing from padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType, TimeStep

from rlws.types import Row, Trajectory

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST
from_rows = jax.jit(Trajectory.from_rows)


def masked_of(trajectory):
    return jax.device_get(jax.jit(Trajectory.masked)(trajectory))


def table(weight=1.0):
    """Two episodes and the beginning of a third; the first terminates, the second is truncated."""
    timestep = TimeStep(
        step_type=np.int32([F, M, L, F, L, F, M]),
        reward=np.float32([0.0, 1, 2, 0, 3, 0, 4]),
        discount=np.float32([1.0, 1, 0, 1, 1, 1, 1]),
        observation={"x": np.float32(np.arange(14)).reshape(7, 2), "n": np.arange(10, 17)},
    )
    return from_rows(Row(timestep, np.arange(7), {"v": np.float32(np.arange(7) * 10)}), weight)


EXPECTED = Trajectory(
    observation={"x": np.arange(14.0).reshape(7, 2), "n": np.arange(10, 17)},
    action=[0, 1, 2, 3, 4, 5],
    reward=[1.0, 2, 0, 3, 0, 4],
    discount=[1.0, 0, 1, 1, 1, 1],
    weight=[1.0, 1, 0, 1, 0, 1],
    first=[True, False, False, True, False, True, False],
    last=[False, True, False, True, False, False],
    extras={"v": [0.0, 10, 20, 30, 40, 50]},
)


@pytest.mark.parametrize("field", Trajectory._fields)
def test_from_rows_follows_the_table(field):
    found, expected = getattr(table(), field), getattr(EXPECTED, field)
    is_list = lambda x: isinstance(x, list)
    jax.tree.map(np.testing.assert_array_equal, expected, found, is_leaf=is_list)


def test_from_rows_multiplies_the_given_weight():
    weight = table(np.float32([2.0, 0.5, 3, 0, 1, 7])).weight
    np.testing.assert_array_equal(weight, [2, 0.5, 0, 0, 0, 7])
    np.testing.assert_array_equal(table(0.25).weight, [0.25, 0.25, 0, 0.25, 0, 0.25])


def test_from_rows_types():
    trajectory = table()
    assert trajectory.weight.dtype == jnp.float32
    assert trajectory.first.dtype == trajectory.last.dtype == jnp.bool_


def test_trace_is_cut_at_both_kinds_of_end():
    whole, some = jax.jit(lambda x: (x.trace(), x.trace(0.9)))(table())
    np.testing.assert_allclose(some, [0.9, 0, 0.9, 0, 0.9, 0.9])
    np.testing.assert_array_equal(whole, [1, 0, 1, 0, 1, 1])


def padded():
    """Steps 2 and 3 of five are padding: NaN, or the largest integer, wherever only they look."""
    nan, largest = np.nan, np.iinfo(np.int32).max
    hidden = np.full((5, 4), 2.0, np.float32)
    hidden[0], hidden[2:4] = 5.0, nan
    image = np.full((6, 2, 2, 1), 3.0, np.float32)
    image[0], image[3] = 4.0, nan
    return Trajectory(
        observation={
            "x": np.float32([[1.0, 2], [3, 4], [5, 6], [nan, nan], [7, 8], [9, 10]]),
            "image": image,
            "n": np.int32([1, 2, 3, largest, 5, 6]),
        },
        action=np.int32([1, 2, largest, largest, 3]),
        reward=np.float32([1.0, 2, nan, nan, 3]),
        discount=np.float32([1.0, 1, nan, nan, 1]),
        weight=np.float32([1.0, 0.5, 0, 0, 2]),
        first=np.array([True, False, False, False, False, False]),
        last=np.array([False, True, False, False, False]),
        extras=(np.float32([1.0, 2, nan, nan, 3]), {"h": hidden}),
    )


def test_masked_replaces_padding_and_nothing_else():
    masked, trajectory = masked_of(padded()), padded()
    np.testing.assert_array_equal(
        masked.observation["x"], [[1, 2], [3, 4], [5, 6], [1, 2], [7, 8], [9, 10]]
    )
    np.testing.assert_array_equal(masked.observation["image"][:, 1, 1, 0], [4, 3, 3, 4, 3, 3])
    np.testing.assert_array_equal(masked.observation["n"], [1, 2, 3, 1, 5, 6])
    np.testing.assert_array_equal(masked.action, [1, 2, 1, 1, 3])
    np.testing.assert_array_equal(masked.reward, [1, 2, 0, 0, 3])
    np.testing.assert_array_equal(masked.discount, [1, 1, 0, 0, 1])
    np.testing.assert_array_equal(masked.extras[0], [1, 2, 1, 1, 3])
    np.testing.assert_array_equal(masked.extras[1]["h"].sum(1), [20, 8, 20, 20, 8])
    for field in ("weight", "first", "last"):
        np.testing.assert_array_equal(getattr(masked, field), getattr(trajectory, field))
    same = lambda x, y: x.dtype == y.dtype and x.shape == y.shape
    assert jax.tree.all(jax.tree.map(same, masked, trajectory))


def test_masked_keeps_the_final_observation_of_an_episode():
    masked = masked_of(table())
    np.testing.assert_array_equal(masked.observation["n"], EXPECTED.observation["n"])
    np.testing.assert_array_equal(masked.reward, EXPECTED.reward)
    np.testing.assert_array_equal(masked.discount, [1, 0, 0, 1, 0, 1])


def test_masked_keeps_gradients_finite():
    def loss(scale, trajectory):
        values = jnp.log(scale * trajectory.observation["x"].sum(-1) + 1)
        terms = (trajectory.reward - values[:-1] * trajectory.extras[0]) ** 2
        return jnp.sum(jnp.where(trajectory.weight > 0, terms, 0.0))

    slope = jax.jit(jax.grad(loss))
    assert np.isnan(slope(2.0, padded()))  # where() alone does not help
    assert np.isfinite(slope(2.0, masked_of(padded())))


def batch():
    """Three trajectories: of padding, as `padded`, and begun by a step without weight."""
    x = padded()
    late = x._replace(weight=np.float32([0.0, 0.5, 0, 0, 2]))
    nan = lambda x: np.full_like(x, np.nan if x.dtype == np.float32 else 99)
    nothing = jax.tree.map(nan, x)._replace(weight=np.zeros(5, np.float32))
    return jax.tree.map(lambda *x: np.stack(x), nothing, x, late)


def test_masked_batch_is_each_trajectory_masked():
    masked = masked_of(batch())
    for i in (1, 2):
        one, alone = (jax.tree.map(lambda x, i=i: x[i], b) for b in (masked, batch()))
        jax.tree.map(np.testing.assert_array_equal, one, masked_of(alone))
    np.testing.assert_array_equal(masked.observation["n"][2], [2, 2, 3, 2, 5, 6])
    np.testing.assert_array_equal(masked.action[2], [2, 2, 2, 2, 3])
    np.testing.assert_array_equal(masked.reward[2], [0, 2, 0, 0, 3])


def test_masked_trajectory_of_padding_repeats_the_first_step_there_is():
    masked = masked_of(batch())
    np.testing.assert_array_equal(masked.observation["x"][0], [[1, 2]] * 6)
    np.testing.assert_array_equal(masked.action[0], [1] * 5)
    for x in (masked.reward, masked.discount, masked.weight):
        np.testing.assert_array_equal(x[0], 0)
    np.testing.assert_array_equal(masked.extras[1]["h"][0], 5)


def test_masked_batch_of_padding_alone_is_zero():
    masked = masked_of(batch()._replace(weight=np.zeros((3, 5), np.float32)))
    for x in jax.tree.leaves(masked._replace(first=(), last=())):
        np.testing.assert_array_equal(x, 0)


def test_masked_does_not_depend_on_the_order_of_trajectories():
    order = np.array([2, 0, 1])  # still, `late` is the first with a step of weight
    permute = lambda tree: jax.tree.map(lambda x: x[order], tree)
    mine, its = permute(masked_of(batch())), masked_of(permute(batch()))
    for i in (0, 2):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y[i]), mine, its)
