"""Heads and their distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from rlws.networks import MLP, Categorical, CategoricalPolicy, Value, compose
from rlws.networks.heads import policy
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec

KEY = jax.random.key(3)
SCALAR = specs.Array((), np.float32)


def build(num_actions):
    observations = specs.Array((6,), np.float32)
    spec = EnvironmentSpec(observations, specs.DiscreteArray(num_actions), SCALAR, SCALAR)
    network = compose(spec, MLP((8,)), policy=CategoricalPolicy.of(spec), value=Value())
    return network, jax.jit(network.init)(KEY)


def test_heads_begin_orthogonal_with_their_gain_and_without_bias():
    _, params = build(5)
    policy, value = (np.float64(params[f"{head}/linear"]["w"]) for head in ("policy", "value"))
    np.testing.assert_allclose(policy.T @ policy, 1e-4 * np.eye(5), atol=1e-9)
    np.testing.assert_allclose(value.T @ value, [[1]], atol=1e-6)
    for head in ("policy", "value"):
        np.testing.assert_array_equal(params[f"{head}/linear"]["b"], 0)


@pytest.mark.parametrize("num_actions", [2, 5, 18])
def test_policy_begins_near_uniform(num_actions):
    network, params = build(num_actions)
    observations = np.random.default_rng(0).normal(0, 3, (200, 6)).astype(np.float32)
    entropy_of = jax.jit(lambda params, x: network.apply(params, x).policy.entropy())
    entropy = np.asarray(entropy_of(params, observations))
    assert (entropy > 0.99 * np.log(num_actions)).all()
    assert (entropy < np.log(num_actions) + 1e-5).all()


def test_policy_begins_with_its_deviation_in_every_part_of_an_action():
    actions = {
        "arm": specs.BoundedArray((2,), np.float32, -1, 1),
        "leg": specs.Array((3,), np.float32),
    }
    spec = EnvironmentSpec(specs.Array((6,), np.float32), actions, SCALAR, SCALAR)
    network = compose(spec, MLP((8,)), policy=policy(spec, std=0.25))
    params = jax.jit(network.init)(KEY)
    found = [module["log_std"] for module in params.values() if "log_std" in module]
    assert sorted(map(len, found)) == [2, 3]
    np.testing.assert_allclose(np.concatenate(found), np.log(0.25), rtol=1e-6)


def test_categorical_policy_needs_discrete_actions():
    actions = specs.BoundedArray((2,), np.float32, -1, 1)
    spec = EnvironmentSpec(SCALAR, actions, SCALAR, SCALAR)
    with pytest.raises(SettingError, match=r"needs discrete actions, got BoundedArray"):
        CategoricalPolicy.of(spec)


PROBABILITIES = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]])
POLICY = Categorical(np.float32(np.log(PROBABILITIES) + 3.0))  # logits need not be normalised


def test_categorical_numbers():
    ask = jax.jit(lambda action: (POLICY.log_prob(action), POLICY.entropy(), POLICY.mode()))
    log_prob, found, mode = ask(np.array([2, 1]))
    np.testing.assert_allclose(log_prob, np.log([0.7, 0.25]), atol=1e-6)
    entropy = -(PROBABILITIES * np.log(PROBABILITIES)).sum(1)
    np.testing.assert_allclose(found, entropy, atol=1e-6)
    np.testing.assert_array_equal(mode, [2, 0])
    assert mode.dtype == jnp.int32


def test_categorical_samples_with_its_probabilities():
    draw = jax.jit(lambda key: jax.vmap(POLICY.sample)(jax.random.split(key, 20000)))
    samples = np.asarray(draw(KEY))
    assert samples.dtype == jnp.int32
    for i, probabilities in enumerate(PROBABILITIES):
        frequencies = np.bincount(samples[:, i], minlength=3) / 20000
        np.testing.assert_allclose(frequencies, probabilities, atol=0.018)  # 5 standard errors


def test_categorical_without_mass_on_an_action_stays_finite():
    @jax.jit
    def ask(logits, key):
        entropy, slope = jax.value_and_grad(lambda x: Categorical(x).entropy())(logits)
        return entropy, slope, jax.vmap(Categorical(logits).sample)(jax.random.split(key, 100))

    entropy, slope, drawn = ask(np.float32([0.0, -1e30, 0.0]), KEY)
    assert entropy == pytest.approx(np.log(2), abs=1e-6)
    assert np.isfinite(slope).all()
    assert 1 not in np.asarray(drawn)
