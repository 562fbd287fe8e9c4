"""Batch normalisation against NumPy: learning, acting, what moves, and who may not have it."""

import jax
import numpy as np
import optax
import pytest
from dm_env import specs

from agents_zoo import a2c, dqn
from rlws.learner import Learner
from rlws.networks import GRU, MLP, BatchNorm, Value, compose, with_prior
from rlws.networks.ensemble import ensemble
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)
SPEC = EnvironmentSpec(
    specs.Array((3,), np.float32), specs.DiscreteArray(2), specs.Array((), float)
)
RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (3, 2, 3)).astype(np.float32)  # three trajectories of two steps
WEIGHT = np.float32([[1, 1], [0.5, 1], [0, 1]])
KEPT = WEIGHT > 0
NORM = "backbone/batch_norm"
RUNNING = {
    "running_mean": np.float32([0.5, 1.0, -9.0]),
    "running_variance": np.float32([4.0, 1.0, 0.01]),
    "running_updates": np.float32(2),
}


def network_of(*hidden, **settings):
    return compose(SPEC, MLP(hidden, batch_norm=BatchNorm(**settings)), value=Value())


def params_of(network, **norm):
    """Returns parameters whose normalisation is none of the beginning's."""
    params = jax.device_get(jax.jit(network.init)(KEY))
    affine = {"scale": np.float32([2, -1, 0.5]), "offset": np.float32([0.1, 0.2, 0.3])}
    return {**params, NORM: {**affine, **RUNNING, **norm}}


def train(network, params, x=X, weight=WEIGHT):
    """Returns outputs [B, T], and statistics, which all trajectories agree on."""
    each = jax.vmap(lambda x, w: network.train(params, x, w), axis_name="batch")
    outputs, found = jax.device_get(jax.jit(each)(x, weight))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, np.broadcast_to(x[0], x.shape)), found)
    return outputs.value, jax.tree.map(lambda x: x[0], found)


def said(params, features):
    """Returns the values of normalised features."""
    features = features * params[NORM]["scale"] + params[NORM]["offset"]
    head = params["value/linear"]
    return (features @ head["w"] + head["b"])[..., 0]


def test_learning_normalises_by_all_steps_of_the_batch_that_have_weight():
    network = network_of(rate=0.25)
    params = params_of(network)
    mean, variance = X[KEPT].mean(axis=0), X[KEPT].var(axis=0)
    values, found = train(network, params)
    expected = said(params, (X - mean) / np.sqrt(variance + 1e-3))
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    moved = {
        "running_mean": 0.75 * RUNNING["running_mean"] + 0.25 * mean,
        "running_variance": 0.75 * RUNNING["running_variance"] + 0.25 * variance,
        "running_updates": 3,
    }
    assert found.keys() == {NORM}
    assert found[NORM].keys() == moved.keys()
    for name, value in moved.items():
        np.testing.assert_allclose(found[NORM][name], value, rtol=1e-5)


def test_what_has_no_weight_is_nothing_to_others():
    network = network_of(4)
    params = jax.device_get(jax.jit(network.init)(KEY))
    values, found = train(network, params)
    spoilt = np.where(KEPT[..., None], X, np.nan)
    again, unspoilt = train(network, params, spoilt)
    np.testing.assert_array_equal(again[KEPT], values[KEPT])
    jax.tree.map(np.testing.assert_array_equal, unspoilt, found)


def test_without_any_weight_nothing_moves():
    network = network_of()
    values, found = train(network, params_of(network), weight=0 * WEIGHT)
    jax.tree.map(np.testing.assert_array_equal, found, {NORM: RUNNING})
    assert np.isfinite(values).all()


def test_acting_normalises_by_running_statistics():
    network = network_of()
    params = params_of(network)
    centred = X - RUNNING["running_mean"]
    expected = said(params, centred / np.sqrt(RUNNING["running_variance"] + 1e-3))
    np.testing.assert_allclose(jax.jit(network.apply)(params, X).value, expected, rtol=1e-5)


@pytest.mark.parametrize(("warm_up", "renormalised"), [(2, True), (0, True), (3, False)])
def test_after_its_warm_up_learning_sees_what_acting_does_up_to_limits(warm_up, renormalised):
    network = network_of(warm_up=warm_up)
    params = params_of(network)
    mean, deviation = X[KEPT].mean(axis=0), np.sqrt(X[KEPT].var(axis=0) + 1e-3)
    own = np.sqrt(RUNNING["running_variance"] + 1e-3)
    r = np.clip(deviation / own, 1 / 3, 3)
    d = np.clip((mean - RUNNING["running_mean"]) / own, -5, 5)
    assert min(r) < max(r) == 3  # within limits, and beyond
    assert min(d) < max(d) == 5
    normal = (X - mean) / deviation
    values, _ = train(network, params)
    expected = said(params, normal * r + d if renormalised else normal)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)
    mean, variance = np.float32([0.5, 1.0, 1.0]), np.float32([4.0, 1.0, 4.0])
    params = params_of(network, running_mean=mean, running_variance=variance)
    values, _ = train(network, params)
    agree = np.allclose(values, jax.jit(network.apply)(params, X).value, atol=1e-4)
    assert agree == renormalised


def test_without_renormalisation_a_warm_up_has_no_end():
    network = network_of(warm_up=None)
    old = params_of(network, running_updates=np.float32(1e9))
    np.testing.assert_array_equal(train(network, old)[0], train(network, params_of(network))[0])


@pytest.mark.parametrize("warm_up", [0, None])
def test_gradients_pass_through_the_batch_and_not_through_running_statistics(warm_up):
    """What moves all observations alike changes nothing that is normalised."""
    network = network_of(warm_up=warm_up)
    params = params_of(network)

    def total(params, x):
        each = jax.vmap(lambda x, w: network.train(params, x, w)[0].value, axis_name="batch")
        return (each(x, WEIGHT) * np.float32([[1, 2], [3, 4], [0, 5]])).sum()

    of_params, of_x = jax.device_get(jax.jit(jax.grad(total, (0, 1)))(params, X))
    for name in RUNNING:
        assert not np.any(of_params[NORM][name])
    assert np.all(of_params[NORM]["scale"] != 0)
    np.testing.assert_allclose(of_x.sum(axis=(0, 1)), 0.0, atol=1e-4)
    assert np.all(np.abs(of_x[KEPT]) > 1e-3)


def test_of_pixels_each_channel_is_normalised():
    pixels = RNG.normal(size=(3, 2, 4, 5, 3)).astype(np.float32)
    spec = SPEC._replace(observations=specs.Array((4, 5, 3), np.float32))
    norm = BatchNorm(rate=1.0)
    network = compose(spec, lambda x: norm(x)[0, 1], value=Value())
    params = params_of(network)
    values, found = train(network, params, pixels)
    kept = pixels[KEPT].reshape(-1, 3)
    mean, variance = kept.mean(axis=0), kept.var(axis=0)
    np.testing.assert_allclose(found[NORM]["running_mean"], mean, atol=1e-6)
    np.testing.assert_allclose(found[NORM]["running_variance"], variance, rtol=1e-5)
    expected = said(params, (pixels[:, :, 0, 1] - mean) / np.sqrt(variance + 1e-3))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_each_of_an_ensemble_has_statistics_of_its_own():
    one = network_of(rate=0.25)
    both = ensemble(one, 2)
    params = {"0": params_of(one), "1": params_of(one, running_mean=np.zeros(3, np.float32))}
    values, found = train(both, params)
    for i in range(2):
        expected, own = train(one, params[str(i)])
        np.testing.assert_allclose(values[..., i], expected, rtol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found[str(i)], own)


def test_without_batch_normalisation_there_are_no_statistics():
    network = compose(SPEC, MLP((4,)), value=Value())
    params = jax.jit(network.init)(KEY)
    both = lambda x: (network.train(params, x, WEIGHT[0]), network.apply(params, x))
    (outputs, found), applied = jax.jit(both)(X[0])
    assert found == {}
    np.testing.assert_array_equal(outputs.value, applied.value)


class Mean(Learner):
    """Draws values to 0, and hands statistics back."""

    def loss(self, params, trajectory, key, state):
        seen = trajectory.without_final()
        outputs, found = self.network.train(params, seen.observation, seen.weight)
        return outputs.value**2, {"statistics": found}


def batch_of():
    fields = [{"reward": [0, 0], "observation": RNG.normal(size=(3, 3))} for _ in range(4)]
    made = [trajectory(**x, weight=[1, i != 2]) for i, x in enumerate(fields)]
    return jax.tree.map(lambda *x: np.float32(np.stack(x)), *made)


def test_a_learner_keeps_the_statistics_that_its_loss_hands_back():
    learner = Mean(network_of(rate=0.25), optax.adamw(0.1, weight_decay=0.5))
    state = jax.jit(learner.init)(KEY)
    batch = batch_of()
    after, metrics = jax.device_get(jax.jit(learner.learn)(state, batch, KEY))
    seen = batch.observation[:, :-1][batch.weight > 0]
    np.testing.assert_allclose(after.params[NORM]["running_mean"], 0.25 * seen.mean(0), atol=1e-6)
    assert after.params[NORM]["running_updates"] == 1
    assert not np.allclose(after.params[NORM]["scale"], 1)
    assert "statistics" not in metrics


class Forgetful(Mean):
    """Hands nothing back."""

    def loss(self, params, trajectory, key, state):
        loss, _ = super().loss(params, trajectory, key, state)
        return loss, {}


@pytest.mark.parametrize("agent", [a2c, dqn])
def test_agents_that_never_move_statistics_are_told(agent):
    learner = agent.Config(backbone=MLP((4,), batch_norm=BatchNorm())).make(SPEC).learner
    state = jax.eval_shape(learner.init, KEY)
    batch = jax.tree.map(np.copy, batch_of())._replace(action=np.zeros((4, 2), np.int32))
    extras = {"log_prob": np.zeros((4, 2), np.float32)}
    with pytest.raises(SettingError, match=r"does not move .*running_mean.*take layer norm"):
        jax.eval_shape(learner.learn, state, batch._replace(extras=extras), KEY)


def test_learners_that_hand_nothing_back_are_told():
    learner = Forgetful(network_of(), optax.sgd(0.1))
    state = jax.eval_shape(learner.init, KEY)
    with pytest.raises(SettingError, match="return its second part as the metric"):
        jax.eval_shape(learner.learn, state, batch_of(), KEY)


def test_statistics_of_what_has_a_memory_never_move():
    backbone = GRU(MLP((4,), batch_norm=BatchNorm()), 4)
    network = compose(SPEC, backbone, value=Value())
    assert network.learning is None  # so that learners are told


def test_a_prior_has_no_batch_normalisation():
    with pytest.raises(SettingError, match="without batch normalisation, got one with it"):
        with_prior(network_of(), 1.0)
