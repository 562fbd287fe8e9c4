"""Backbones: what they compute, how they begin, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from rlws.networks import MLP, Value, compose
from rlws.networks.backbones import ACTIVATIONS
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec

KEY = jax.random.key(3)


def build(backbone, shape=(6,)):
    scalar = specs.Array((), np.float32)
    observations = specs.Array(shape, np.float32)
    spec = EnvironmentSpec(observations, specs.DiscreteArray(2), scalar, scalar)
    network = compose(spec, backbone, seen=lambda features: features)
    return network, network.init(KEY)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_mlp_weights_begin_orthogonal_with_gain_sqrt_2(size):
    _, params = build(MLP((size,)))
    w = np.float64(params["backbone/linear"]["w"])
    gram = w.T @ w if size <= 6 else w @ w.T  # the shorter side is orthogonal
    np.testing.assert_allclose(gram, 2 * np.eye(min(size, 6)), atol=1e-5)
    np.testing.assert_array_equal(params["backbone/linear"]["b"], 0)


def test_mlp_weights_begin_with_the_given_scale():
    _, params = build(MLP((4,), scale=3.0))
    w = np.float64(params["backbone/linear"]["w"])
    np.testing.assert_allclose(w.T @ w, 9 * np.eye(4), atol=1e-4)


@pytest.mark.parametrize(
    ("initializer", "variance"), [("glorot", 2 / (200 + 300)), ("he", 2 / 200)]
)
def test_mlp_initializers_have_their_variance(initializer, variance):
    for scale in (1.0, 2.0):
        _, params = build(MLP((300,), initializer=initializer, scale=scale), (200,))
        w = np.asarray(params["backbone/linear"]["w"])
        # 60000 draws: the standard error of the variance is 0.6 % at most.
        assert w.var() == pytest.approx(scale**2 * variance, rel=0.03)
        assert abs(w.mean()) < 4 * np.sqrt(scale**2 * variance / w.size)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_mlp_is_layers_by_hand(activation):
    formulas = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
        "silu": lambda x: x / (1 + np.exp(-x)),
        "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    }
    network, params = build(MLP((4, 3), activation=activation))
    params = jax.tree.map(lambda p: p + 0.1, params)  # biases too
    features = x = np.linspace(-2, 2, 6).astype(np.float32)
    for name in ("backbone/linear", "backbone/linear_1"):
        features = formulas[activation](features @ params[name]["w"] + params[name]["b"])
    np.testing.assert_allclose(network.apply(params, x).seen, features, atol=1e-5)


def test_mlp_refuses_images():
    with pytest.raises(SettingError, match=r"at most 2 axes, got shape \(8, 8, 3\).*convolutional"):
        build(MLP(), (8, 8, 3))
    network, params = build(MLP((4,)), (3, 5))  # a board is none
    assert network.apply(params, jnp.ones((7, 3, 5))).seen.shape == (7, 4)


def test_mlp_settings_are_checked():
    with pytest.raises(SettingError, match=r"MLP\.activation: unknown value 'tahn'.*'tanh'"):
        MLP(activation="tahn")
    with pytest.raises(SettingError, match=r"MLP\.scale must be greater than 0, got 0"):
        MLP(scale=0)


def test_any_function_is_a_backbone():
    network, params = build(lambda observation: Value()(observation)[None])
    assert network.apply(params, jnp.ones(6)).seen.shape == (1,)
