"""V-MPO: the better half and its temperature by hand, and how far a batch may move the policy."""

import functools

import jax
import numpy as np
import optax
import pytest

from agents_zoo import vmpo
from rlws.networks import Categorical
from rlws.testing import AgentConformance
from tests.agents_zoo.test_a2c import PARAMS, TABLE
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
CONFIG = vmpo.Config(discount=0.9, gae_lambda=0.8, epochs=8, normalise_advantages=False)
LEARNER = vmpo.VMPO(TABLE, optax.sgd(0.05), 1, CONFIG)
DUALS = {"log_temperature": np.float32(0), "log_prices": np.zeros(1, np.float32)}


@functools.cache
def best_half():
    return jax.jit(
        jax.vmap(vmpo.best_half, in_axes=(0, 0, None, None), axis_name="batch"), static_argnums=3
    )


def test_vmpo_learns_from_the_better_half_of_the_whole_batch():
    advantage = np.float32([[3, 1, 0], [2, 9, -1]])
    real = np.array([[True, True, True], [True, False, True]])
    weight, loss = best_half()(advantage, real, np.float32(0), 0.5)
    total = np.exp(3) + np.exp(2) + np.exp(1)  # the median, 1, is one of five
    expected = 5 * np.exp([[3, 1, -np.inf], [2, -np.inf, -np.inf]]) / total
    np.testing.assert_allclose(weight, expected, rtol=1e-5)
    np.testing.assert_allclose(loss, 0.5 + np.log(total / 3), rtol=1e-5)


def test_vmpo_temperature_solves_two_steps_in_closed_form():
    """Weights (3/4, 1/4) are log 2 minus their entropy from uniform ones."""
    temperature = 0.7
    epsilon = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    advantage = np.float32([[temperature * np.log(3), 0, -5, -6]])
    real = np.ones((1, 4), bool)
    loss = lambda x: jax.vmap(lambda a, r: vmpo.best_half(a, r, x, epsilon)[1], axis_name="batch")(
        advantage, real
    ).sum()
    slope = jax.jit(jax.grad(loss))
    assert float(slope(np.float32(np.log(temperature)))) == pytest.approx(0.0, abs=1e-6)
    assert slope(np.float32(np.log(2 * temperature))) > 0.01
    assert slope(np.float32(np.log(temperature / 2))) < -0.01


@pytest.mark.parametrize(
    ("discount", "expected"),
    [([1, 1, 1], [3.85344, 2.852, 1.6]), ([1, 0, 1], [1.08, -1.0, 1.6])],
)
def test_vmpo_advantages_by_hand(discount, expected):
    steps = trajectory(reward=[1, 1, 1], discount=discount, last=[False, not discount[1], False])
    steps = steps._replace(weight=np.ones(3, np.float32))
    extras = jax.jit(LEARNER.samples)(PARAMS, steps).extras
    np.testing.assert_allclose(extras["advantage"], expected, rtol=1e-5)
    np.testing.assert_allclose(extras["return"], np.add(expected, [1, 2, 3]), rtol=1e-5)


def test_vmpo_advantages_bootstrap_from_the_last_observation_of_a_truncated_episode():
    params = {**PARAMS, "v": np.float32([1, 2, 10, 4])}
    steps = trajectory(reward=[1, 1, 1], last=[False, True, False])
    advantage = jax.jit(LEARNER.samples)(params, steps).extras["advantage"]
    np.testing.assert_allclose(advantage[:2], [7.56, 8], rtol=1e-5)


@functools.cache
def learned():
    steps = trajectory(reward=[1, 1, 1], action=[0, 1, 0])
    batch = jax.tree.map(lambda x: np.asarray(x)[None], steps)
    state = LEARNER.init(KEY)._replace(params=PARAMS | DUALS)
    state = state._replace(opt_state=LEARNER.optimizer.init(state.params))
    return jax.device_get(jax.jit(LEARNER.learn)(state, batch, KEY))


def test_vmpo_imitates_the_better_half_and_says_how_far_it_went():
    after, metrics = learned()
    logits = after.params["l"]
    assert logits[0, 0] > 0 > logits[0, 1]  # action 0 was taken there
    assert logits[1, 1] > 0 > logits[1, 0]
    np.testing.assert_allclose(logits[2], 0.0, atol=1e-6)  # the worst of three
    assert metrics["policy_kl"] > 1e-4  # from who acted, not from the step before


def test_vmpo_gradient_is_that_of_weighted_imitation_and_a_bound():
    samples = LEARNER.samples(PARAMS, trajectory(reward=[1, 1, 1], action=[0, 1, 0]))
    extras = samples.extras
    samples = samples._replace(extras={**extras, "policy": Categorical(np.zeros((3, 2)))})
    batch = jax.tree.map(lambda x: np.asarray(x)[None], samples)
    params = PARAMS | DUALS | {"l": np.float32([[1, 0]] * 4)}
    gradient = jax.jit(jax.grad(lambda p: LEARNER.batch_loss(p, batch, KEY, None)[0]))(params)
    chance = 1 / (1 + np.exp(-1.0))
    advantage = np.asarray(extras["advantage"])
    weight = 3 * np.exp(advantage[:2]) / np.exp(advantage[:2]).sum()
    # d KL(uniform || pi) / d logit is pi - 1/2; that of -log pi(a) is pi - [a = 0].
    imitation = weight * (chance - np.array([1.0, 0.0]))
    expected = np.append(imitation, 0.0) + (chance - 0.5)
    np.testing.assert_allclose(gradient["l"][:3, 0], expected / 3, rtol=1e-4)
    kl = -np.log(2) - 0.5 * (np.log(chance) + np.log(1 - chance))
    np.testing.assert_allclose(gradient["log_prices"], [CONFIG.epsilon_policy - kl], rtol=1e-3)


@pytest.mark.thorough
class TestVMPO(AgentConformance):
    config = vmpo.Config()
    only = PARTS


@pytest.mark.thorough
class TestContinuousVMPO(AgentConformance):
    config = vmpo.Config()
    actions = "continuous"
    only = PARTS
