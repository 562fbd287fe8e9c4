"""A2C: its loss by hand, and agreement of trainers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents_zoo import a2c
from rlws.learner import LearnerState
from rlws.networks import GRU, MLP, Categorical, Network
from rlws.trainers import DeviceTrainer, HostTrainer
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)


class Outputs(dict):
    __getattr__ = dict.__getitem__


# Observation i: value params["v"][i], logits params["l"][i].
TABLE = Network(
    lambda key: {},
    lambda params, i: Outputs(value=params["v"][i], policy=Categorical(params["l"][i])),
)
PARAMS = {"v": jnp.array([1.0, 2, 3, 4]), "l": jnp.zeros((4, 2))}


def loss(params, **settings):
    config = a2c.Config(discount=0.9, gae_lambda=0.8, entropy_cost=0.1, **settings)
    learner = a2c.A2C(TABLE, optax.sgd(1.0), config)
    steps = jax.tree.map(jnp.asarray, trajectory(reward=[1, 1, 1], action=[0, 1, 0]))
    return learner.loss(params, steps, KEY, LearnerState(params, ()))[0]


def test_a2c_loss_by_hand():
    advantage = np.array([3.85344, 2.852, 1.6])
    expected = np.log(2) * advantage + 0.5 * advantage**2 / 2 - 0.1 * np.log(2)
    np.testing.assert_allclose(loss(PARAMS), expected, rtol=1e-6)


def test_a2c_gradient_by_hand():
    grads = jax.grad(lambda p: loss(p).sum())(PARAMS)
    advantage = np.array([3.85344, 2.852, 1.6])
    # Values move towards their targets, which are constant; the last one is a target only.
    np.testing.assert_allclose(grads["v"], [*(-0.5 * advantage), 0], rtol=1e-5)
    sign = np.array([-1, 1, -1])  # towards the action taken: 0, 1, 0
    np.testing.assert_allclose(grads["l"][:3, 0], sign * advantage / 2, rtol=1e-5)
    np.testing.assert_array_equal(grads["l"][3], 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [MLP((16,)), pytest.param(GRU(MLP((8,)), 8), marks=pytest.mark.slow)],
    ids=["MLP", "GRU"],
)
def test_a2c_host_and_device_agree(backbone):
    config, last = a2c.Config(backbone=backbone, unroll_length=5), []
    for trainer in (HostTrainer(num_envs=3), DeviceTrainer(num_envs=3)):
        *_, progress = trainer.train(config, "jax:CartPole-v1", seed=1, steps=300)
        last.append((progress.updates, jax.device_get(progress.params)))
    assert last[0][0] == last[1][0] > 15
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), last[0][1], last[1][1])
