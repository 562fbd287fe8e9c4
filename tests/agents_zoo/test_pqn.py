"""PQN: its returns and its annealing by hand."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from agents_zoo import pqn
from rlws import critics, environments
from rlws.networks import GRU, MLP
from rlws.settings import SettingError
from rlws.testing import AgentConformance
from rlws.trainers import DeviceTrainer, HostTrainer
from tests.agents_zoo.test_dqn import ONLINE, TABLE
from tests.agents_zoo.test_ppo import real_batch
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
SPEC = environments.make("jax:CartPole-v1").spec()
# Of four environments, as other agents are tested in.
SMALL = pqn.Config(MLP((8,), "relu", layer_norm=True), unroll_length=16, minibatches=2, epochs=2)


@functools.cache
def samples(cut):
    learner = pqn.PQN(TABLE, optax.sgd(1.0), pqn.Config(discount=0.5, trace=0.5, cut=cut))
    return jax.jit(learner.samples)


@pytest.mark.parametrize(
    ("cut", "ends", "expected"),
    [
        # Of the best values 5, 4 and 7 that follow.
        (False, [], [1 + 0.25 * 5 + 0.25 * 3.875, 1 + 0.25 * 4 + 0.25 * 7.5, 4 + 0.5 * 7]),
        # The second action is not the best of (5, 3), the third is that of (0, 4).
        (True, [], [1 + 0.5 * 5, 1 + 0.25 * 4 + 0.25 * 7.5, 4 + 0.5 * 7]),
        # By time: bootstrapped from its last observation. By termination: from nothing.
        (False, ["time"], [1 + 0.25 * 5 + 0.25 * 3, 1 + 0.5 * 4, 4 + 0.5 * 7]),
        (False, ["termination"], [1 + 0.25 * 5 + 0.25 * 1, 1.0, 4 + 0.5 * 7]),
    ],
)
def test_pqn_returns_by_hand(cut, ends, expected):
    last = [False, bool(ends), False]
    discount = [1, 0 if ends == ["termination"] else 1, 1]
    steps = trajectory(reward=[1, 1, 4], discount=discount, last=last, action=[0, 1, 1])
    found = samples(cut)(ONLINE, steps)
    np.testing.assert_allclose(found.extras["return"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("critic", "expected"),
    [(critics.Scalar(), [0.5, 2.0]), (critics.Quantiles(3), [0.75, 2.25])],
)
def test_pqn_learns_what_its_critic_is_told(critic, expected):
    """All weights 0: a value of 0, of returns that are 1 and 2."""
    learner = dataclasses.replace(SMALL, critic=critic).make(SPEC).learner
    params = jax.tree.map(lambda x: np.zeros(x.shape), jax.eval_shape(learner.init, KEY).params)
    steps = trajectory(observation=np.ones((3, 4), np.float32), reward=[0, 0]).without_final()
    steps = steps._replace(extras={"return": np.float32([1, 2])})
    loss, _ = jax.jit(lambda params: learner.loss(params, steps, KEY, None))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.slow
def test_pqn_moves_and_anneals_to_nothing():
    config = dataclasses.replace(SMALL, anneal_steps=64)
    agent, state, batch = real_batch(config)
    state, batch = jax.device_get((state, batch))
    learn = jax.jit(agent.learner.learn)
    moved, metrics = jax.device_get(learn(state, batch, KEY))
    assert moved.extra == (batch.weight > 0).sum()
    assert np.isfinite(metrics["loss"])
    different = jax.tree.map(lambda x, y: bool((x != y).any()), moved.params, state.params)
    assert any(jax.tree.leaves(different))
    still, _ = learn(moved._replace(extra=np.float32(64)), batch, KEY)
    jax.tree.map(np.testing.assert_array_equal, still.params, moved.params)


def test_pqn_minibatches_must_divide_the_batch():
    with pytest.raises(SettingError, match="64 steps of a batch must be minibatches=3 of whole"):
        real_batch(dataclasses.replace(SMALL, minibatches=3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", [SMALL.backbone, pytest.param(GRU(MLP((8,)), 8), marks=pytest.mark.thorough)]
)
def test_pqn_host_and_device_agree(backbone):
    config = dataclasses.replace(SMALL, backbone=backbone)
    one, other = (
        list(trainer(num_envs=2).train(config, "jax:CartPole-v1", steps=160))[-1]
        for trainer in (HostTrainer, DeviceTrainer)
    )
    assert one.updates == other.updates > 1
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
    jax.tree.map(close, one.params, other.params)


@pytest.mark.thorough
class TestPQN(AgentConformance):
    config = pqn.Config()
    only = PARTS
    test_host_and_device_agree = None  # above, of a smaller one
