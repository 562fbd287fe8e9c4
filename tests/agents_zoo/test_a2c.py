"""A2C: its loss by hand, and agreement of trainers."""

import functools

import jax
import numpy as np
import optax
import pytest

from agents_zoo import a2c
from rlws.learner import LearnerState
from rlws.networks import MLP, Categorical, Network
from rlws.trainers import DeviceTrainer, HostTrainer
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)


class Outputs(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


# Observation i: value params["v"][i], logits params["l"][i].
TABLE = Network(
    lambda key: {},
    lambda params, i: Outputs(value=params["v"][i], policy=Categorical(params["l"][i])),
)
PARAMS = {"v": np.float32([1, 2, 3, 4]), "l": np.zeros((4, 2), np.float32)}


@functools.cache
def loss_and_gradient():
    config = a2c.Config(discount=0.9, gae_lambda=0.8, entropy_cost=0.1)
    learner = a2c.A2C(TABLE, optax.sgd(1.0), config)

    def total(params, steps):
        loss = learner.loss(params, steps, KEY, LearnerState(params, ()))[0]
        return loss.sum(), loss

    steps = trajectory(reward=[1, 1, 1], action=[0, 1, 0])
    grads, loss = jax.jit(jax.grad(total, has_aux=True))(PARAMS, steps)
    return loss, grads


def test_a2c_loss_by_hand():
    advantage = np.array([3.85344, 2.852, 1.6])
    expected = np.log(2) * advantage + 0.5 * advantage**2 / 2 - 0.1 * np.log(2)
    np.testing.assert_allclose(loss_and_gradient()[0], expected, rtol=1e-6)


def test_a2c_gradient_by_hand():
    grads = loss_and_gradient()[1]
    advantage = np.array([3.85344, 2.852, 1.6])
    # Values move towards their targets, which are constant; the last one is a target only.
    np.testing.assert_allclose(grads["v"], [*(-0.5 * advantage), 0], rtol=1e-5)
    sign = np.array([-1, 1, -1])  # towards the action taken: 0, 1, 0
    np.testing.assert_allclose(grads["l"][:3, 0], sign * advantage / 2, rtol=1e-5)
    np.testing.assert_array_equal(grads["l"][3], 0)


@pytest.mark.slow
def test_a2c_host_and_device_agree():
    config, last = a2c.Config(MLP((16,)), unroll_length=5), []
    for trainer in (HostTrainer(num_envs=3), DeviceTrainer(num_envs=3)):
        *_, progress = trainer.train(config, "jax:CartPole-v1", seed=1, steps=300)
        last.append((progress.updates, jax.device_get(progress.params)))
    assert last[0][0] == last[1][0] > 15
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), last[0][1], last[1][1])
