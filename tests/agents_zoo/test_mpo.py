"""MPO: its temperature and prices by hand, two parts bounded apart, and who gets which gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import mpo
from rlws.networks import MLP, Normal
from rlws.settings import SettingError
from rlws.testing import AgentConformance
from tests.agents_zoo.test_sac import SPEC, batch_of, constant, one_of
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
CONFIG = mpo.Config(
    backbone=MLP((8,), "relu"), capacity=100, min_size=10, batch_size=4, samples=4, n_step=1
)
LEARNER = CONFIG.make(SPEC).learner


@functools.cache
def initial():
    return jax.device_get(jax.jit(LEARNER.init)(KEY))


@functools.cache
def metrics_of():
    """Returns the compiled metrics of a loss, of parameters, one trajectory and a state."""
    return jax.jit(lambda params, one, state: LEARNER.loss(params, one, KEY, state)[1])


def test_mpo_temperature_solves_three_samples_in_closed_form():
    """Weights (1/2, 1/4, 1/4) are log 3 - 3/2 log 2 nats from uniform ones."""
    temperature = 0.7
    values = np.float32([temperature * np.log(2), 0, 0])
    epsilon = np.log(3) - 1.5 * np.log(2)

    @jax.jit
    def at(log_temperature):
        loss = lambda x: mpo.reweighted(values, x, epsilon)[1]
        weights = mpo.reweighted(values, log_temperature, epsilon)[0]
        return weights, *jax.value_and_grad(loss)(log_temperature)

    weights, loss, slope = at(np.float32(np.log(temperature)))
    np.testing.assert_allclose(weights, [0.5, 0.25, 0.25], rtol=1e-5)
    assert float(loss) == pytest.approx(temperature * (epsilon + np.log(4 / 3)), rel=1e-5)
    assert float(slope) == pytest.approx(0.0, abs=1e-6)
    # Descent leads there from either side.
    assert at(np.float32(np.log(2 * temperature)))[2] > 0.01
    assert at(np.float32(np.log(temperature / 2)))[2] < -0.01


def test_mpo_prices_rise_above_the_limit_and_stay_positive():
    limits, log_prices = np.float32([0.1, 0.2]), np.log(np.float32([2.0, 3.0]))
    divergences = np.float32([[0.5, 0.05]])
    loss = lambda d, p: mpo.bounded(d, p, limits).sum()
    of_divergences, of_prices = jax.jit(jax.grad(loss, (0, 1)))(divergences, log_prices)
    np.testing.assert_allclose(of_divergences, [[2.0, 3.0]], rtol=1e-6)
    np.testing.assert_allclose(of_prices, [2 * (0.1 - 0.5), 3 * (0.2 - 0.05)], rtol=1e-5)
    # However far a step goes, what is learned are logarithms.
    assert np.isfinite(loss(divergences, log_prices - 50.0))


def test_normal_divergences_are_of_mean_and_deviation_apart():
    one = lambda x: np.float32([x])
    old = Normal(one(0), one(0))
    apart = jax.jit(lambda mean, std: old.divergences(Normal(mean, jnp.log(std))))
    of_std = np.log(2) + 1 / 8 - 1 / 2
    np.testing.assert_allclose(apart(one(1), one(1)), [0.5, 0.0], atol=1e-6)
    np.testing.assert_allclose(apart(one(0), one(2)), [0.0, of_std], atol=1e-6)
    np.testing.assert_allclose(apart(one(1), one(2)), [0.5, of_std], atol=1e-6)


def test_mpo_log_prob_is_of_mean_and_deviation_apart():
    one = lambda x: np.float32([x])
    old, new = Normal(one(0), one(0)), Normal(one(2), np.log(one(3)))
    expected = -0.5 - 1 / 18 - np.log(3) - np.log(2 * np.pi)  # at 1: N(2, 1) and N(0, 3)
    assert float(mpo._decoupled(old, new, one(1))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("discount", "target"), [(1.0, 1 + 0.99 * 3), (0.0, 1.0)])
def test_mpo_target_is_the_target_value_and_stops_at_termination(discount, target):
    state = initial()
    zeros = jax.tree.map(np.zeros_like, state.params["critic"])
    params = {**state.params, "critic": zeros}
    state = state._replace(extra={**state.extra, "critic": constant(zeros, 3.0)})
    metrics = metrics_of()(params, one_of(discount=discount), state)
    np.testing.assert_allclose(metrics["critic_loss"], target**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["target"], target, rtol=1e-5)


def test_mpo_losses_reach_their_own_parameters_only():
    state, one = initial(), one_of()

    def reached(loss):
        grads = jax.device_get(jax.jit(jax.grad(loss))(state.params))
        moves = lambda x: any(np.any(leaf) for leaf in jax.tree.leaves(x))
        return {name for name, grad in grads.items() if moves(grad)}

    part = lambda name: lambda params: metrics_of()(params, one, state)[name].sum()
    assert reached(part("critic_loss")) == {"critic"}
    assert reached(part("policy_loss")) == {"policy"}
    whole = lambda params: LEARNER.loss(params, one, KEY, state)[0].sum()
    assert reached(whole) == {"critic", "policy", "log_temperature", "log_prices"}


def test_mpo_actions_beyond_their_bounds_are_worth_those_at_them():
    params, observation = initial().params["critic"], np.ones((1, 3), np.float32)
    worth = jax.jit(lambda action: LEARNER.says(params, observation, action).mean())
    at, beyond, within = (np.float32([x]) for x in ([2, 1], [9, 1.5], [1, 0.5]))
    np.testing.assert_array_equal(worth(at), worth(beyond))
    assert worth(at) != worth(within)


def test_mpo_targets_are_copied_every_period():
    learner = CONFIG.make(SPEC).learner
    state = initial()._replace(updates=np.int32(CONFIG.target_period - 2))
    learn = jax.jit(learner.learn)
    before, _ = jax.device_get(learn(state, batch_of(), KEY))
    after, _ = jax.device_get(learn(before, batch_of(), KEY))
    jax.tree.map(np.testing.assert_array_equal, before.extra, initial().extra)
    expected = {name: after.params[name] for name in ("policy", "critic")}
    jax.tree.map(np.testing.assert_array_equal, after.extra, expected)


def test_mpo_needs_continuous_actions():
    with pytest.raises(SettingError, match="real numbers"):
        CONFIG.make(SPEC._replace(actions=specs.DiscreteArray(3)))


@pytest.mark.thorough
class TestMPO(AgentConformance):
    config = mpo.Config()
    only = PARTS
