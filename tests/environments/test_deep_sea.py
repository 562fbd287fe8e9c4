"""Deep sea: one way leads to the treasure; and bsuite's is the same."""

import functools

import dm_env
import jax
import numpy as np
import pytest

from rlws import environments

DEEP_SEA = environments.DeepSea(4)
right = np.random.RandomState(42).binomial(1, 0.5, (4, 4))


@functools.cache
def compiled(sea):
    return jax.jit(sea.reset), jax.jit(sea.step)


def played(choose, sea=DEEP_SEA):
    """Returns the timesteps of the episode of `choose(row, column)`."""
    reset, step = compiled(sea)
    state, timestep = jax.device_get(reset(jax.random.key(0)))
    found = [timestep]
    while found[-1].step_type != dm_env.StepType.LAST:
        state, timestep = jax.device_get(step(state, choose(int(state.row), int(state.column))))
        found.append(timestep)
    return found


def test_the_treasure_is_at_the_end_of_the_way_to_the_right():
    steps = played(lambda row, column: right[row, column])
    np.testing.assert_allclose([x.reward for x in steps[1:]], [*[-0.0025] * 3, 0.9975], rtol=1e-5)
    assert [int(np.argmax(x.observation)) for x in steps[:-1]] == [0, 5, 10, 15]
    assert [float(x.discount) for x in steps[1:]] == [1, 1, 1, 0]
    assert not steps[-1].observation.any()


def test_a_single_step_to_the_left_misses_it():
    for wrong in range(4):
        steps = played(lambda row, column, wrong=wrong: right[row, column] ^ (row == wrong))
        assert sum(float(x.reward) for x in steps) == pytest.approx(-0.0075)


def test_it_is_bsuites():
    theirs = pytest.importorskip("bsuite.environments.deep_sea")
    sea = theirs.DeepSea(5, mapping_seed=3)
    choices = np.random.default_rng(0).integers(0, 2, (10, 5))
    for choice in choices:
        ours = played(lambda row, column, x=choice: x[row], environments.DeepSea(5, mapping=3))
        others = [sea.reset(), *(sea.step(int(action)) for action in choice)]
        for one, other in zip(ours, others, strict=True):
            assert one.step_type == other.step_type
            np.testing.assert_array_equal(one.observation, other.observation)
            np.testing.assert_allclose(one.reward, other.reward or 0.0, atol=1e-7)
