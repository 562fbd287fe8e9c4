"""AWR: its loss by hand."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from agents_zoo import awr
from rlws.learner import LearnerState
from rlws.testing import AgentConformance
from tests.agents_zoo.test_a2c import PARAMS, TABLE
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
CONFIG = awr.Config(
    discount=0.9, td_lambda=0.8, temperature=2.0, max_weight=5.0, normalise_advantages=False
)
ADVANTAGE = np.array([3.85344, 2.852, 1.6])


def compute(config, steps, params=PARAMS):
    learner = awr.AWR(TABLE, optax.sgd(1.0), config)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], steps)

    def total(params):
        loss = lambda one: learner.loss(params, one, KEY, LearnerState(params, ()))
        losses, metrics = jax.vmap(loss, axis_name="batch")(batch)
        return losses.sum(), (losses[0], jax.tree.map(lambda x: x[0], metrics))

    grads, found = jax.jit(jax.grad(total, has_aux=True))(params)
    return *found, grads


def test_awr_loss_and_gradient_by_hand():
    loss, metrics, grads = compute(CONFIG, trajectory(reward=[1, 1, 1], action=[0, 1, 0]))
    weight = np.minimum(np.exp(ADVANTAGE / 2), 5.0)
    assert weight[0] == 5.0 > weight[1]
    np.testing.assert_allclose(metrics["weight"], weight, rtol=1e-5)
    np.testing.assert_allclose(loss, weight * np.log(2) + ADVANTAGE**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(grads["v"], [*-ADVANTAGE, 0], rtol=1e-5)
    np.testing.assert_allclose(grads["l"][:3, 0], np.array([-1, 1, -1]) * weight / 2, rtol=1e-5)


def test_awr_standardises_advantages():
    config = dataclasses.replace(CONFIG, normalise_advantages=True)
    _, metrics, _ = compute(config, trajectory(reward=[1, 1, 1]))
    standard = (ADVANTAGE - ADVANTAGE.mean()) / ADVANTAGE.std()
    np.testing.assert_allclose(metrics["weight"], np.exp(standard / 2), rtol=1e-4)


@pytest.mark.parametrize(("discount", "first"), [(1, [8.56, 10.0]), (0, [2.0 - 0.08, 1.0])])
def test_awr_returns_end_where_the_episode_does(discount, first):
    """Cut before a value of 10, or terminated: delta_0 is 1.8 - 1, and V(s_1) is 2."""
    params = {**PARAMS, "v": np.float32([1, 2, 10, 4])}
    steps = trajectory([1, 1, 1], discount=[1, discount, 1], last=[False, True, False])
    target = compute(CONFIG, steps, params)[1]["target"]
    later = 1 + 0.9 * 10 * discount - 2
    np.testing.assert_allclose(target[:2], [1 + 1.8 + 0.72 * later, 2 + later], rtol=1e-5)
    if discount:
        np.testing.assert_allclose(target[:2], first, rtol=1e-5)


@pytest.mark.thorough
class TestAWR(AgentConformance):
    config = awr.Config()
    only = PARTS


@pytest.mark.thorough
class TestContinuousAWR(AgentConformance):
    config = awr.Config()
    actions = "continuous"
    only = PARTS
