"""C51, QR-DQN, IQN, Munchausen DQN, Rainbow and R2D2: DQN with other parts."""

import jax
import numpy as np
import optax
import pytest

from agents_zoo import c51, dqn, iqn, munchausen, qrdqn, r2d2, rainbow
from rlws import critics, environments
from rlws.actor import EpsilonGreedy
from rlws.learner import LearnerState
from rlws.networks import LSTM, MLP
from rlws.settings import SettingError
from rlws.testing import AgentConformance
from rlws.trainers import DeviceTrainer
from tests.agents_zoo.test_dqn import ONLINE, TABLE, TARGET
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
SMALL = dict(capacity=200, min_size=20, batch_size=4, period=4)


def test_munchausen_target_by_hand():
    tau, alpha, gamma = 2.0, 0.5, 0.5
    config = munchausen.Config(temperature=tau, munchausen=alpha, discount=gamma)
    learner = dqn.DQN(TABLE, optax.sgd(1.0), config)
    steps = trajectory(reward=[1, 1], action=[1, 0])
    loss = lambda p, target: learner.loss(p, steps, KEY, LearnerState(p, (), target))[1]
    found = jax.jit(loss)(ONLINE, TARGET)["target"]
    q = TARGET.astype(float)
    log_policy = q / tau - np.log(np.exp(q / tau).sum(axis=-1, keepdims=True))
    soft = (np.exp(log_policy) * (q - tau * log_policy)).sum(axis=-1)
    bonus = np.clip(tau * log_policy[[0, 1], [1, 0]], -1, 0)
    np.testing.assert_allclose(found, 1 + alpha * bonus + gamma * soft[1:3], rtol=1e-5)
    assert bonus[1] == -1  # where it is cut


def test_munchausen_needs_a_temperature():
    spec = environments.make("jax:CartPole-v1").spec()
    with pytest.raises(SettingError, match="munchausen needs a temperature"):
        munchausen.Config(temperature=0.0).make(spec)
    with pytest.raises(SettingError, match=r"loss is of critics\.Scalar, got 'huber' with Quant"):
        qrdqn.Config(loss="huber").make(spec)
    with pytest.raises(SettingError, match="optimism needs a critic that says more than a mean"):
        dqn.Config(optimism=1.0).make(spec)


def test_categorical_surprise_is_a_divergence():
    critic = critics.Categorical(3, 0.0, 2.0)
    logits = np.log(np.float32([0.2, 0.5, 0.3]))
    said = critics.Returns(np.float32([0, 1, 2]), logits, critic=critic)
    target = critics.Returns(np.float32([0, 1]), np.log(np.float32([0.25, 0.75])))
    expected = 0.25 * np.log(0.25 / 0.2) + 0.75 * np.log(0.75 / 0.5)
    found = jax.jit(critics.Returns.surprise)(said, target)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_boltzmann_acts_by_its_temperature(temperature):
    actor = EpsilonGreedy(TABLE, 0.0, 0.0, 1, temperature=temperature)
    choose = lambda key: actor.choose(TABLE.apply(ONLINE, np.int32(0)), key)
    draw = jax.jit(lambda key: jax.vmap(choose)(jax.random.split(key, 4000)))
    drawn = np.asarray(draw(KEY))
    expected = 1 / (1 + np.exp(-1 / 2.0)) if temperature else 1.0  # of values 1 and 2
    assert drawn.mean() == pytest.approx(expected, abs=0.03)


def test_optimism_adds_the_deviation_of_what_may_be_returned():
    certain = critics.Returns(np.float32([[1, 1], [-3, 4]]), critic=critics.Quantiles(2))

    class Outputs:
        q, q_returns = certain.atoms.mean(axis=-1), certain

    choose = lambda c: EpsilonGreedy(TABLE, 0, 0, 1, optimism=c).choose(Outputs, KEY)
    assert jax.device_get(jax.jit(lambda: [choose(0.1), choose(1.0)])()) == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        qrdqn.Config(MLP((8,)), **SMALL),
        pytest.param(rainbow.Config(MLP((8,)), **SMALL), marks=pytest.mark.thorough),
        pytest.param(iqn.Config(MLP((8,)), **SMALL), marks=pytest.mark.thorough),
        r2d2.Config(LSTM(MLP((8,)), 8), sequence_length=4, burn_in=2, **SMALL),
    ],
    ids=lambda config: type(config).__module__,
)
def test_learning_is_finite_and_moves_all_parameters(config):
    progress = DeviceTrainer(num_envs=2).train(config, "jax:CartPole-v1", steps=80)
    *_, last = progress
    assert last.updates > 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(last.params)))
    assert np.isfinite(last.metrics["loss"])


@pytest.mark.thorough
class TestC51(AgentConformance):
    config = c51.Config()
    only = PARTS


@pytest.mark.thorough
class TestRainbow(AgentConformance):
    config = rainbow.Config()
    only = PARTS


@pytest.mark.thorough
class TestR2D2(AgentConformance):
    config = r2d2.Config()
    only = PARTS
