"""Returns against rlax's."""

import jax
import numpy as np
import pytest
import rlax

from rlws.numerics.returns import generalised_advantages, n_step_returns, traced_returns


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
    theirs = jax.jit(rlax.truncated_generalized_advantage_estimation)(
        r_t, discount_t, 0.9 * trace, values
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_n_step_returns_are_rlaxs(steps, n):
    r_t, discount_t, trace, values = stream(steps, n)
    compiled = (
        jax.jit(f, static_argnums=3) for f in (n_step_returns, rlax.n_step_bootstrapped_returns)
    )
    ours, theirs = (f(r_t, discount_t, values[1:], n, trace) for f in compiled)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_n_step_returns_stop_where_an_episode_is_cut():
    r_t, ones = np.ones(3, np.float32), np.ones(3, np.float32)
    values = np.array([2.0, 10.0, 100.0], np.float32)
    cut = np.float32([1.0, 0.0, 1.0])
    found = jax.jit(n_step_returns, static_argnums=3)(r_t, 0.9 * ones, values, 3, cut)
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
        ours = jax.jit(generalised_advantages)
        found = ours(*map(np.float32, (r_t, discount_t, lambda_ * trace, values)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 9])
def test_traced_returns_are_rlaxs(steps):
    """Peng's Q(lambda), tree backup and Retrace; rlax takes one lambda, so no episode is cut."""
    rng = np.random.default_rng(steps)
    r_t, discount_t, *_ = stream(steps, steps)
    q = rng.normal(size=(steps + 1, 3)).astype(np.float32)
    pi, mu = (rng.dirichlet(np.ones(3), steps + 1).astype(np.float32) for _ in range(2))
    action = rng.integers(0, 3, steps + 1)
    at = lambda x: np.take_along_axis(x, action[:, None], 1)[1:, 0]
    ours = jax.jit(traced_returns)

    peng = ours(r_t, discount_t, np.full(steps, np.float32(0.8)), q[1:].max(axis=1))
    expected = jax.jit(rlax.lambda_returns)(r_t, discount_t, q[1:].max(axis=1), 0.8)
    np.testing.assert_allclose(peng, expected, rtol=1e-4, atol=1e-5)

    mean, taken = (pi * q).sum(axis=1)[1:], at(q)
    for c_t in (0.8 * at(pi), 0.8 * np.minimum(1.0, at(pi) / at(mu))):
        found = ours(r_t, discount_t, c_t, mean, taken)
        expected = jax.jit(rlax.general_off_policy_returns_from_action_values)(
            q[1:], action[1:], r_t, discount_t, c_t, pi[1:]
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("discount", "first"), [(0.5, 1 + 0.5 * 10), (0.0, 1.0)])
def test_traced_returns_stop_where_an_episode_ends(discount, first):
    """By time they bootstrap from its last observation, by termination from nothing."""
    ones = np.ones(3, np.float32)
    c_t = np.float32([0.0, 0.8, 0.8])
    values = np.float32([10, 100, 1000])
    found = jax.jit(traced_returns)(ones, 0.5 * ones * [2 * discount, 1, 1], c_t, values)
    last = 1 + 0.5 * 1000
    np.testing.assert_allclose(found, [first, 1 + 0.5 * (0.2 * 100 + 0.8 * last), last], rtol=1e-6)
