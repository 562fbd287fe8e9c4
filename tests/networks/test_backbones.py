"""Backbones: what they compute, how they begin, what they refuse."""

import jax
import numpy as np
import pytest
from dm_env import specs

from rlws.networks import CNN, MLP, ResNet, Value, compose, nature
from rlws.networks.backbones import ACTIVATIONS
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec

KEY = jax.random.key(3)


def build(backbone, shape=(6,)):
    scalar = specs.Array((), np.float32)
    observations = specs.Array(shape, np.float32)
    spec = EnvironmentSpec(observations, specs.DiscreteArray(2), scalar, scalar)
    network = compose(spec, backbone, seen=lambda features: features)
    return network, jax.jit(network.init)(KEY)


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
    params = jax.tree.map(lambda p: np.asarray(p) + 0.1, params)  # biases too
    features = x = np.linspace(-2, 2, 6).astype(np.float32)
    for name in ("backbone/linear", "backbone/linear_1"):
        features = formulas[activation](features @ params[name]["w"] + params[name]["b"])
    np.testing.assert_allclose(jax.jit(network.apply)(params, x).seen, features, atol=1e-5)


def normal(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def test_mlp_normalises_layers_by_hand():
    network, params = build(MLP((4,), activation="relu", layer_norm=True))
    params = jax.tree.map(np.array, params)
    layer, norm = params["backbone/linear"], params["backbone/layer_norm"]
    norm["scale"] += np.arange(4)
    norm["offset"] -= 0.3
    x = np.linspace(-2, 2, 6).astype(np.float32)
    features = normal(x @ layer["w"] + layer["b"]) * norm["scale"] + norm["offset"]
    seen = jax.jit(network.apply)(params, x).seen
    np.testing.assert_allclose(seen, np.maximum(features, 0), atol=1e-5)


def convolved(layer, image):
    """3 x 3 with as much of zeros around as keeps the size, by hand."""
    height, width, _ = image.shape
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    around = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    w = np.asarray(layer["w"]).reshape(9, image.shape[-1], -1)
    return sum(x @ y for x, y in zip(around, w, strict=True)) + np.asarray(layer["b"])


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.slow
def test_resnet_is_residual_blocks_by_hand(layer_norm):
    backbone = ResNet((3,), 1, MLP((2,), "relu"), layer_norm)
    network, params = build(backbone, (6, 6, 2))
    params = jax.tree.map(lambda p: np.asarray(p) + 0.05, params)
    image = np.random.default_rng(0).normal(size=(6, 6, 2)).astype(np.float32)
    begun, *inner = (params[f"backbone/conv2_d{n}"] for n in ("", "_1", "_2"))
    norms = [params.get(f"backbone/layer_norm{n}") for n in ("", "_1", "_2")]

    def active(x, norm):
        if layer_norm:
            x = normal(x) * np.asarray(norm["scale"]) + np.asarray(norm["offset"])
        return np.maximum(x, 0)

    wide = np.pad(convolved(begun, image), ((0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    windows = [wide[i : i + 6 : 2, j : j + 6 : 2] for i in range(3) for j in range(3)]
    x = pooled = np.max([window[:3, :3] for window in windows], axis=0)
    for layer, norm in zip(inner, norms, strict=False):
        x = convolved(layer, active(x, norm))
    last = params["backbone/linear"]
    features = active(pooled + x, norms[2]).ravel() @ last["w"] + last["b"]
    seen = jax.jit(network.apply)(params, image).seen
    np.testing.assert_allclose(seen, np.maximum(features, 0), atol=2e-4)


def test_nature_has_the_published_sizes():
    shapes = jax.eval_shape(lambda: build(nature(), (84, 84, 4))[1])
    sizes = [sum(x.size for x in jax.tree.leaves(layer)) for layer in shapes.values()]
    assert sizes == [
        8 * 8 * 4 * 32 + 32,
        16 * 32 * 64 + 64,
        9 * 64 * 64 + 64,
        7 * 7 * 64 * 512 + 512,
    ]


@pytest.mark.parametrize("backbone", [CNN(mlp=MLP((3,))), ResNet((2,), 0, MLP((3,)))], ids=repr)
def test_bytes_are_divided_by_255(backbone):
    network, params = build(backbone, (5, 5, 1))
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    seen = jax.jit(lambda *images: [network.apply(params, x).seen for x in images])
    np.testing.assert_allclose(*seen(image, np.float32(image / 255)), atol=1e-6)


@pytest.mark.parametrize("backbone", [CNN(), ResNet()], ids=repr)
def test_pictures_alone_are_convolved(backbone):
    with pytest.raises(SettingError, match=rf"{type(backbone).__name__}: .*must be one image"):
        build(backbone, (6,))


def test_mlp_refuses_images():
    with pytest.raises(SettingError, match=r"at most 2 axes, got shape \(8, 8, 3\).*convolutional"):
        build(MLP(), (8, 8, 3))
    network, params = build(MLP((4,)), (3, 5))  # a board is none
    assert jax.eval_shape(network.apply, params, np.ones((7, 3, 5))).seen.shape == (7, 4)


def test_mlp_settings_are_checked():
    with pytest.raises(SettingError, match=r"MLP\.activation: unknown value 'tahn'.*'tanh'"):
        MLP(activation="tahn")
    with pytest.raises(SettingError, match=r"MLP\.scale must be greater than 0, got 0"):
        MLP(scale=0)


def test_any_function_is_a_backbone():
    network, params = build(lambda observation: Value()(observation)[None])
    assert jax.eval_shape(network.apply, params, np.ones(6)).seen.shape == (1,)
