"""A convolution by patches is XLA's, values and gradients, and Haiku's, parameters and all."""

import functools

import haiku as hk
import jax
import numpy as np
import pytest

from rlws.networks.convolution import Convolution, by_patches, by_xla


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((5, 4, 2), 3, 1),
        ((9, 8, 1), 4, 2),  # blocks; a row is left over
        ((12, 17, 3), 8, 4),
        ((8, 9, 2), 3, 2),  # no blocks
        ((7, 9, 1), 2, 3),  # some pixels are not seen at all
        ((4, 4, 3), 4, 4),  # one place
        ((5, 5, 2), 1, 1),
    ],
)
def test_patches_are_xlas_convolution(shape, size, stride):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(size, size, shape[-1], 3)).astype(np.float32)

    @jax.jit
    def both(image, kernel):
        with_stride = (functools.partial(f, stride=stride) for f in (by_patches, by_xla))
        found = [jax.vjp(f, image, kernel) for f in with_stride]
        cotangent = jax.random.normal(jax.random.key(0), found[1][0].shape)
        return [(out, *back(cotangent)) for out, back in found]

    for ours, theirs in zip(*both(image, kernel), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_parameters_are_haikus():
    image = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    w_init = hk.initializers.TruncatedNormal()

    def ours(image):
        return Convolution(3, 4, 2, w_init)(image)

    def theirs(image):
        return hk.Conv2D(3, 4, 2, w_init=w_init, padding="VALID")(image)

    @jax.jit
    def both(key):
        networks = [hk.without_apply_rng(hk.transform(f)) for f in (ours, theirs)]
        params = [network.init(key, image) for network in networks]
        out = [network.apply(params[0], image) for network in networks]
        return params, out

    params, out = both(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, *params)
    np.testing.assert_allclose(*out, rtol=1e-5, atol=1e-5)
