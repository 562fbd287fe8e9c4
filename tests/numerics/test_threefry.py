"""The unrolled generator against JAX's own: the same bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlws.numerics.threefry import THREEFRY, hash_2x32

pytestmark = pytest.mark.exact

SEEDS = (0, 1, 42, 2**31 - 1, 2**32 - 1, -5)


def keys(*shape, seed=7):
    """Returns the same keys for both generators."""
    data = np.random.default_rng(seed).integers(0, 2**32, (*shape, 2), np.uint32)
    return [jax.random.wrap_key_data(data, impl=impl) for impl in (THREEFRY, "threefry2x32")]


def both(draw, pair):
    ours, theirs = (draw(key) for key in pair)
    if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
        ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
    assert ours.dtype == theirs.dtype
    return np.asarray(ours), np.asarray(theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_threefry_seed_is_jaxs(seed):
    ours, theirs = (jax.random.key(seed, impl=impl) for impl in (THREEFRY, "threefry2x32"))
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(theirs))


DRAWS = {
    "split": lambda key: jax.random.split(key),
    "split one": lambda key: jax.random.split(key, 1),
    "split shape": lambda key: jax.random.split(key, (3, 5)),
    "fold_in": lambda key: jax.random.fold_in(key, 12345),
    "fold_in large": lambda key: jax.random.fold_in(key, np.uint32(2**32 - 1)),
    "split of fold_in": lambda key: jax.random.split(jax.random.fold_in(key, 3), 4),
    "bits8": lambda key: jax.random.bits(key, (7, 3), np.uint8),
    "bits16": lambda key: jax.random.bits(key, (5,), np.uint16),
    "bits32": lambda key: jax.random.bits(key, (4, 3, 2), np.uint32),
    "bits scalar": lambda key: jax.random.bits(key),
    "bits none": lambda key: jax.random.bits(key, (0, 3)),
    "uniform": lambda key: jax.random.uniform(key, (257,)),
    "normal": lambda key: jax.random.normal(key, (6, 11)),
    "randint": lambda key: jax.random.randint(key, (101,), -3, 1000),
    "permutation": lambda key: jax.random.permutation(key, 50),
    "categorical": lambda key: jax.random.categorical(key, jnp.arange(5.0), shape=(64,)),
}


@pytest.fixture(scope="module")
def drawn():
    """All draws of 3 keys, by both generators, jitted and vmapped."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    as_bits = lambda x: jax.random.key_data(x) if is_key(x) else x
    everything = lambda key: {name: as_bits(draw(key)) for name, draw in DRAWS.items()}
    ours, theirs = (jax.jit(jax.vmap(everything))(key) for key in keys(3))
    return {name: (ours[name], theirs[name]) for name in DRAWS}


@pytest.mark.parametrize("name", DRAWS)
def test_threefry_draws_are_jaxs(drawn, name):
    ours, theirs = drawn[name]
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["split", "fold_in", "bits32", "normal"])
def test_threefry_draws_are_jaxs_without_transformations(name):
    np.testing.assert_array_equal(*both(DRAWS[name], keys()))


@pytest.mark.parametrize("draw", [jax.random.bits, jax.random.normal])
def test_threefry_draws_are_jaxs_in_64_bits(draw):
    with jax.enable_x64(True):
        dtype = np.uint64 if draw is jax.random.bits else np.float64
        ours, theirs = both(jax.jit(lambda key: draw(key, (6, 2), dtype)), keys())
        assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, theirs)


def test_threefry_fold_in_counts_under_vmap():
    fold = lambda key: jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(10))
    ours, theirs = both(jax.jit(fold), keys())
    np.testing.assert_array_equal(ours, theirs)
    assert len(np.unique(ours, axis=0)) == 10


def test_threefry_known_answers():
    # Test vectors of the paper's own Random123, kat_vectors: threefry2x32 20.
    ones, pi = 2**32 - 1, (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3)
    for k0, k1, c0, c1, expected in [
        (0, 0, 0, 0, (0x6B200159, 0x99BA4EFE)),
        (ones, ones, ones, ones, (0x1CB996FC, 0xBB002BE7)),
        (*pi, (0xC4923A9C, 0x483DF7A0)),
    ]:
        words = [jnp.uint32(word) for word in (k0, k1, c0, c1)]
        found = hash_2x32((words[0], words[1]), words[2], words[3])
        assert tuple(int(x) for x in found) == expected


def test_threefry_refuses_more_numbers_than_it_can_count():
    key = jax.random.key(0, impl=THREEFRY)
    draw = jax.jit(lambda: jax.random.bits(key, (2**16, 2**16)))
    with pytest.raises(ValueError, match=r"at most 2\*\*32 - 1 random numbers"):
        draw.lower()
