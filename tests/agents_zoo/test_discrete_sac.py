"""Discrete SAC: expectations over actions by hand, its temperature, and who gets which gradient."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import discrete_sac
from rlws import critics
from rlws.networks import MLP
from rlws.testing import AgentConformance
from rlws.types import ACTION_MASK, EnvironmentSpec
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
SPEC = EnvironmentSpec(specs.Array((3,), np.float32), specs.DiscreteArray(2))
CONFIG = discrete_sac.Config(
    backbone=MLP((8,), "relu"), capacity=100, min_size=10, batch_size=4, temperature=0.5
)
LEARNER = CONFIG.make(SPEC).learner


@functools.cache
def initial():
    return jax.device_get(jax.jit(LEARNER.init)(KEY))


@functools.cache
def metrics_of():
    """Returns the compiled metrics of a loss, of parameters, one trajectory and a state."""
    return jax.jit(lambda params, one, state: LEARNER.loss(params, one, KEY, state)[1])


def one_of(action=1, discount=1.0):
    observation = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    return trajectory([1.0], [discount], observation=observation, action=np.int32([action]))


def saying(tree, **biases):
    """Returns parameters of zero, but for these biases of last layers."""
    zeros = jax.tree.map(np.zeros_like, tree)
    last = lambda name, module: {**module, "b": np.float32(biases[name])}
    return {k: last(k, v) if k in biases else v for k, v in zeros.items()}


def known(**online):
    """Returns parameters and a state: target values (5, 1) and (3, 4), a policy of (3/4, 1/4)."""
    state = initial()
    critic = state.params["critic"]
    values = lambda q: {k: saying(critic[k], **{"q/linear": x}) for k, x in q.items()}
    policy = saying(state.params["policy"], **{"policy/linear": [np.log(3), 0]})
    params = {**state.params, "policy": policy, "critic": values(online)}
    return params, state._replace(extra=values({"0": [5, 1], "1": [3, 4]}))


ENTROPY = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
SOFT = 0.75 * 3 + 0.25 * 1 + 0.5 * ENTROPY  # of the lower of each action, temperature 1/2


@pytest.mark.parametrize(("discount", "target"), [(1.0, 1 + 0.99 * SOFT), (0.0, 1.0)])
def test_discrete_sac_losses_by_hand(discount, target):
    online = {"0": [2, 7], "1": [1, 8]}
    params, state = known(**online)
    metrics = metrics_of()(params, one_of(action=1, discount=discount), state)
    np.testing.assert_allclose(metrics["target"], target, rtol=1e-5)
    error = ((target - 7) ** 2 + (target - 8) ** 2) / 2
    np.testing.assert_allclose(metrics["critic_loss"], error, rtol=1e-5)
    expected = -0.5 * ENTROPY - (0.75 * 1 + 0.25 * 7)
    np.testing.assert_allclose(metrics["policy_loss"], expected, rtol=1e-5)


def test_discrete_sac_values_are_soft():
    params, _ = known(**{"0": [5, 1], "1": [3, 4]})
    np.testing.assert_allclose(jax.jit(LEARNER.value)(params, one_of()), [SOFT] * 2, rtol=1e-5)


def test_discrete_sac_losses_reach_their_own_parameters_only():
    state, one = initial(), one_of()

    def reached(loss):
        grads = jax.device_get(jax.jit(jax.grad(loss))(state.params))
        moves = lambda x: any(np.any(leaf) for leaf in jax.tree.leaves(x))
        return {name for name, grad in grads.items() if moves(grad)}

    part = lambda name: lambda params: metrics_of()(params, one, state)[name].sum()
    assert reached(part("critic_loss")) == {"critic"}
    assert reached(part("policy_loss")) == {"policy"}


def slope(config, params, state, one, spec=SPEC):
    """Returns the gradient of the logarithm of the temperature."""
    learner = config.make(spec).learner
    loss = lambda params: learner.loss(params, one, KEY, state)[0].sum()
    return float(jax.jit(jax.grad(loss))(params)["log_temperature"])


def test_discrete_sac_temperature_follows_the_entropy():
    params, state = known(**{"0": [0, 0], "1": [0, 0]})
    for share in (0.98, 0.1):
        config = dataclasses.replace(CONFIG, entropy_share=share)
        found = slope(config, params, state, one_of())
        # Descent raises it where there is less entropy than there shall be.
        assert found == pytest.approx(ENTROPY - share * np.log(2), rel=1e-4)


def test_discrete_sac_wants_entropy_among_legal_actions_only():
    observations = {"x": SPEC.observations, ACTION_MASK: specs.Array((3,), bool)}
    spec = SPEC._replace(observations=observations, actions=specs.DiscreteArray(3))
    state = jax.device_get(jax.jit(CONFIG.make(spec).learner.init)(KEY))
    params = {**state.params, "policy": saying(state.params["policy"])}  # uniform
    one = one_of()
    for mask, number in (([1, 1, 0], 2), ([0, 1, 0], 1), ([1, 1, 1], 3)):
        mask = np.broadcast_to(np.array(mask, bool), (2, 3))
        masked = one._replace(observation={"x": one.observation, ACTION_MASK: mask})
        found = slope(CONFIG, params, state, masked, spec)
        assert found == pytest.approx(0.02 * np.log(number), abs=1e-6)


def test_discrete_sac_targets_move_by_their_rate():
    state, one = initial(), one_of()
    batch = jax.tree.map(lambda x: np.asarray(x)[None], one)
    after, _ = jax.device_get(jax.jit(LEARNER.learn)(state, batch, KEY))
    expected = jax.tree.map(
        lambda old, new: 0.995 * old + 0.005 * new, state.extra, after.params["critic"]
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), after.extra, expected)


@pytest.mark.parametrize("critic", [critics.Categorical(5, -1.0, 9.0), critics.Quantiles(4)])
def test_discrete_sac_takes_any_critic(critic):
    """Its targets are a mixture of what is said of each action, of the same mean."""
    learner = dataclasses.replace(CONFIG, critic=critic).make(SPEC).learner
    state, one = jax.jit(learner.init)(KEY), one_of()
    loss, metrics = jax.jit(lambda s: learner.loss(s.params, one, KEY, s))(state)
    following = jax.jit(learner.value)(state.params, one)[1:]  # targets are those still
    np.testing.assert_allclose(metrics["target"], 1 + 0.99 * following, rtol=1e-4)
    assert np.isfinite(loss).all()


@pytest.mark.thorough
class TestDiscreteSAC(AgentConformance):
    config = discrete_sac.Config()
    only = PARTS
