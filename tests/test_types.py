"""Trajectories: rows in, steps out, and nothing from padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType, TimeStep

from rlws.types import Row, Trajectory

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST


def table(weight=1.0):
    """Two episodes and the beginning of a third; the first terminates, the second is truncated."""
    timestep = TimeStep(
        step_type=jnp.array([F, M, L, F, L, F, M], jnp.int32),
        reward=jnp.array([0.0, 1, 2, 0, 3, 0, 4]),
        discount=jnp.array([1.0, 1, 0, 1, 1, 1, 1]),
        observation={"x": jnp.arange(14.0).reshape(7, 2), "n": jnp.arange(10, 17)},
    )
    return Trajectory.from_rows(Row(timestep, jnp.arange(7), {"v": jnp.arange(7.0) * 10}), weight)


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
    weight = table(jnp.array([2.0, 0.5, 3, 0, 1, 7])).weight
    np.testing.assert_array_equal(weight, [2, 0.5, 0, 0, 0, 7])
    np.testing.assert_array_equal(table(0.25).weight, [0.25, 0.25, 0, 0.25, 0, 0.25])


def test_from_rows_types():
    trajectory = table()
    assert trajectory.weight.dtype == jnp.float32
    assert trajectory.first.dtype == trajectory.last.dtype == jnp.bool_


def test_trace_is_cut_at_both_kinds_of_end():
    np.testing.assert_allclose(table().trace(0.9), [0.9, 0, 0.9, 0, 0.9, 0.9])
    np.testing.assert_array_equal(table().trace(), [1, 0, 1, 0, 1, 1])


def padded():
    """Steps 2 and 3 of five are padding: NaN, or the largest integer, wherever only they look."""
    nan, largest = np.nan, np.iinfo(np.int32).max
    hidden = jnp.full((5, 4), 2.0).at[0].set(5.0)
    return Trajectory(
        observation={
            "x": jnp.array([[1.0, 2], [3, 4], [5, 6], [nan, nan], [7, 8], [9, 10]]),
            "image": jnp.full((6, 2, 2, 1), 3.0).at[0].set(4.0).at[3].set(nan),
            "n": jnp.array([1, 2, 3, largest, 5, 6]),
        },
        action=jnp.array([1, 2, largest, largest, 3]),
        reward=jnp.array([1.0, 2, nan, nan, 3]),
        discount=jnp.array([1.0, 1, nan, nan, 1]),
        weight=jnp.array([1.0, 0.5, 0, 0, 2]),
        first=jnp.array([True, False, False, False, False, False]),
        last=jnp.array([False, True, False, False, False]),
        extras=(jnp.array([1.0, 2, nan, nan, 3]), {"h": hidden.at[2:4].set(nan)}),
    )


def test_masked_replaces_padding_and_nothing_else():
    masked, trajectory = padded().masked(), padded()
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
    masked = table().masked()
    np.testing.assert_array_equal(masked.observation["n"], EXPECTED.observation["n"])
    np.testing.assert_array_equal(masked.reward, EXPECTED.reward)
    np.testing.assert_array_equal(masked.discount, [1, 0, 0, 1, 0, 1])


def test_masked_keeps_gradients_finite():
    def loss(scale, trajectory):
        values = jnp.log(scale * trajectory.observation["x"].sum(-1) + 1)
        terms = (trajectory.reward - values[:-1] * trajectory.extras[0]) ** 2
        return jnp.sum(jnp.where(trajectory.weight > 0, terms, 0.0))

    assert np.isnan(jax.grad(loss)(2.0, padded()))  # where() alone does not help
    assert np.isfinite(jax.grad(loss)(2.0, padded().masked()))


def batch():
    """Three trajectories: of padding, as `padded`, and begun by a step without weight."""
    x = padded()
    late = x._replace(weight=jnp.array([0.0, 0.5, 0, 0, 2]))
    nan = lambda x: jnp.full_like(x, jnp.nan if x.dtype == jnp.float32 else 99)
    nothing = jax.tree.map(nan, x)._replace(weight=jnp.zeros(5))
    return jax.tree.map(lambda *x: jnp.stack(x), nothing, x, late)


def test_masked_batch_is_each_trajectory_masked():
    masked = batch().masked()
    for i in (1, 2):
        one, alone = (jax.tree.map(lambda x, i=i: x[i], b) for b in (masked, batch()))
        jax.tree.map(np.testing.assert_array_equal, one, alone.masked())
    np.testing.assert_array_equal(masked.observation["n"][2], [2, 2, 3, 2, 5, 6])
    np.testing.assert_array_equal(masked.action[2], [2, 2, 2, 2, 3])
    np.testing.assert_array_equal(masked.reward[2], [0, 2, 0, 0, 3])


def test_masked_trajectory_of_padding_repeats_the_first_step_there_is():
    masked = batch().masked()
    np.testing.assert_array_equal(masked.observation["x"][0], [[1, 2]] * 6)
    np.testing.assert_array_equal(masked.action[0], [1] * 5)
    for x in (masked.reward, masked.discount, masked.weight):
        np.testing.assert_array_equal(x[0], 0)
    np.testing.assert_array_equal(masked.extras[1]["h"][0], 5)


def test_masked_batch_of_padding_alone_is_zero():
    masked = batch()._replace(weight=jnp.zeros((3, 5))).masked()
    for x in jax.tree.leaves(masked._replace(first=(), last=())):
        np.testing.assert_array_equal(x, 0)


def test_masked_does_not_depend_on_the_order_of_trajectories():
    order = np.array([2, 0, 1])  # still, `late` is the first with a step of weight
    permute = lambda tree: jax.tree.map(lambda x: x[order], tree)
    mine, its = permute(batch().masked()), permute(batch()).masked()
    for i in (0, 2):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y[i]), mine, its)
