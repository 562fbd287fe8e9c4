import jax
import numpy as np
import pytest
from scipy import stats

from rlws.numerics.permutation import permutation

pytestmark = pytest.mark.exact


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 1000, 5000])
def test_permutation_has_each_number_once(n):
    several = jax.jit(jax.vmap(lambda key: permutation(key, n)))(
        jax.random.split(jax.random.key(n), 4)
    )
    for found in np.asarray(several):
        np.testing.assert_array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", [20, 64])
def test_permutation_puts_numbers_anywhere_and_apart(n):
    count = 40_000
    keys = jax.random.split(jax.random.key(0), count)
    found = np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, n)))(keys))
    for i in range(n):
        _, p = stats.chisquare(np.bincount(found[:, i], minlength=n))
        assert p > 1e-4 / n
    # Numbers that are neighbours before are no nearer than others afterwards.
    distance = np.abs(found[:, 1:] - found[:, :-1]).mean()
    assert distance == pytest.approx((n + 1) / 3, rel=0.01)
    below = (found[:, : n // 2] < n // 2).sum(axis=1)
    expected = stats.hypergeom(n, n // 2, n // 2)
    assert below.var() == pytest.approx(expected.var(), rel=0.1)


def test_permutation_depends_on_its_key():
    permuted = jax.jit(permutation, static_argnums=1)
    one, other = (np.asarray(permuted(jax.random.key(k), 512)) for k in (0, 1))
    assert np.mean(one == other) < 0.02
    np.testing.assert_array_equal(one, permuted(jax.random.key(0), 512))
