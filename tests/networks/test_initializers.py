"""Initial weights."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import dqn, ppo, sac, td3
from rlws.diagnose.tabular import Tabular, make_table
from rlws.networks.initializers import Orthogonal, orthonormal
from rlws.trainers import initial


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 3), (256, 256), (3, 3, 2, 8)])
def test_orthogonal_weights_have_their_gain(shape):
    init = hk.transform(lambda: Orthogonal(2.0)(shape, jnp.float32))
    w = np.float64(init.apply({}, jax.random.key(0))).reshape(-1, shape[-1])
    gram = w.T @ w if len(w) >= shape[-1] else w @ w.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_orthonormal_equals_lapack():
    x = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    q, r = np.linalg.qr(x)
    np.testing.assert_allclose(orthonormal(jnp.asarray(x)), q * np.sign(np.diag(r)), atol=1e-5)


def test_orthonormal_of_nearly_dependent_columns():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    x[:, 1] = x[:, 0] + 1e-4 * x[:, 1]
    q = np.asarray(orthonormal(jnp.asarray(x)))
    np.testing.assert_allclose(q.T @ q, np.eye(3), atol=1e-5)


# Networks of A2C and REINFORCE are those of PPO, and those of TD3 nearly those of SAC.
@pytest.mark.slow
@pytest.mark.parametrize("module", [ppo, dqn, sac, td3])
def test_agents_begin_without_calls_into_libraries(module):
    """Batches of those, from many seeds, have deadlocked on few cores."""
    spec = Tabular(make_table(), module in (sac, td3)).spec()
    agent = module.Config().make(spec)
    seeds = jnp.arange(4, dtype=jnp.uint32)
    init = jax.jit(jax.vmap(lambda seed: initial.init(agent, spec, seed, 2)))
    assert "custom_call" not in init.lower(seeds).as_text()
