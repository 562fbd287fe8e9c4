"""Optimisers against numbers worked by hand."""

import jax
import numpy as np
import pytest

from rlws.numerics.optimizers import clipped_adam


@pytest.mark.parametrize("eps", [1e-8, 1e-5])
def test_clipped_adam_is_adam_by_hand(eps):
    """Kingma and Ba, 2015, algorithm 1; with gradients so small that epsilon counts."""
    optimizer = clipped_adam(0.01, 0.5, eps=eps)
    x = np.float32([1.0, -2.0])
    state, update = jax.jit(optimizer.init)(x), jax.jit(optimizer.update)
    m, v, by_hand = np.zeros(2), np.zeros(2), np.array([1.0, -2.0])
    for t in range(1, 4):
        g = np.array([2e-5, -1e-5]) * t
        moved, state = update(np.float32(g), state, x)
        x = x + np.asarray(moved)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        by_hand -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
        np.testing.assert_allclose(x, by_hand, rtol=1e-6)


def test_clipped_adam_clips_by_the_norm_of_all():
    optimizer = clipped_adam(0.01, 0.5, eps=1.0)  # so large that the size of gradients is kept
    grads = {"a": np.float32([30.0]), "b": np.float32([40.0])}
    params = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
    update, _ = jax.jit(lambda: optimizer.update(grads, optimizer.init(params), params))()
    for name, clipped in (("a", 0.3), ("b", 0.4)):
        np.testing.assert_allclose(update[name], -0.01 * clipped / (clipped + 1.0), rtol=1e-5)
