"""Returns against rlax's."""

import jax
import numpy as np
import pytest
import rlax

from rlws.numerics.returns import generalised_advantages, n_step_returns


def stream(steps, seed):
    rng = np.random.default_rng(seed)
    normal = lambda n: rng.normal(size=n).astype(np.float32)
    discount = 0.97 * (rng.random(steps) > 0.2).astype(np.float32)
    trace = (rng.random(steps) > 0.3).astype(np.float32)
    return normal(steps), discount, trace, normal(steps + 1)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_generalised_advantages_are_rlaxs(steps):
    r_t, discount_t, trace, values = stream(steps, steps)
    ours = jax.jit(generalised_advantages)(r_t, discount_t, 0.9 * trace, values)
    theirs = rlax.truncated_generalized_advantage_estimation(r_t, discount_t, 0.9 * trace, values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_n_step_returns_are_rlaxs(steps, n):
    r_t, discount_t, trace, values = stream(steps, n)
    ours = n_step_returns(r_t, discount_t, values[1:], n, trace)
    theirs = rlax.n_step_bootstrapped_returns(r_t, discount_t, values[1:], n, trace)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_n_step_returns_stop_where_an_episode_is_cut():
    r_t, ones = np.ones(3, np.float32), np.ones(3, np.float32)
    values = np.array([2.0, 10.0, 100.0], np.float32)
    found = n_step_returns(r_t, 0.9 * ones, values, 3, np.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(found, [1 + 0.9 + 0.81 * 10, 1 + 0.9 * 10, 1 + 0.9 * 100])


def test_generalised_advantages_are_those_of_a_loop_over_all_pairs_of_steps():
    """Schulman et al., 2016: each is a sum of the later errors, up to where the episode ends."""
    r_t, discount_t, trace, values = (x.astype(np.float64) for x in stream(12, 0))
    for lambda_ in (0.0, 0.7, 1.0):
        expected = np.zeros(12)
        for t in range(12):
            factor = 1.0
            for k in range(t, 12):
                expected[t] += factor * (r_t[k] + discount_t[k] * values[k + 1] - values[k])
                factor *= discount_t[k] * lambda_ * trace[k]
        found = generalised_advantages(*map(np.float32, (r_t, discount_t, lambda_ * trace, values)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
