import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlws.numerics.packing import pack

pytestmark = pytest.mark.exact


def test_pack_takes_rows_of_every_type_and_shape():
    rng = np.random.default_rng(0)
    nest = {
        "x": rng.normal(size=(7, 2, 3)).astype(np.float32),
        "y": (rng.normal(size=7).astype(np.float32), rng.integers(0, 9, (7, 1), np.int32)),
        "image": rng.integers(0, 255, (7, 2, 2, 1), np.uint8),
        "flag": rng.random(7) > 0.5,
        "none": (),
    }
    index = jnp.array([3, 0, 3, 6])
    found = jax.jit(lambda nest: pack(nest).take(index))(nest)
    expected = jax.tree.map(lambda x: x[np.asarray(index)], nest)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)
    assert len(pack(nest).arrays) == 4  # one for each type
