"""PPG: when its auxiliary phase comes, what that changes, and of what."""

import dataclasses

import jax
import numpy as np
import pytest

from agents_zoo import ppg
from rlws import environments
from rlws.networks import MLP, Categorical, Normal
from rlws.settings import SettingError
from rlws.testing import AgentConformance
from rlws.trainers import DeviceTrainer, HostTrainer, initial
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

SPEC = environments.make("jax:CartPole-v1").spec()
CONFIG = ppg.Config(
    backbone=MLP((8,)),
    unroll_length=8,
    minibatches=2,
    phase=2,
    auxiliary_epochs=2,
    auxiliary_minibatches=2,
)


def trained(config, steps, trainer):
    environment = environments.make("jax:CartPole-v1")
    return list(trainer.train(config, environment, steps=steps, seed=0))[-1]


def same(one, other):
    return jax.tree.map(lambda x, y: np.array_equal(x, y), one, other)


@pytest.mark.slow
def test_the_auxiliary_phase_comes_every_so_many_updates():
    """Its head learns then, and only then."""
    begin = jax.jit(lambda: initial.init(CONFIG.make(SPEC), SPEC, 0, 2))().learner.params
    auxiliary = "auxiliary/linear"
    for updates, moved in ((1, False), (2, True)):
        params = trained(CONFIG, 16 * updates, DeviceTrainer(num_envs=2)).params
        assert same(begin[auxiliary], params[auxiliary])["w"] != moved
        assert not same(begin["policy/linear"], params["policy/linear"])["w"]


def test_divergences_are_those_of_the_definition():
    p, q = Categorical(np.float32([0.3, -1.0, 2.0])), Categorical(np.float32([1.0, 0.0, 0.5]))
    one = Normal(np.float32([0.5]), np.float32([-0.3]))
    other = Normal(np.float32([-0.2]), np.float32([0.4]))
    grid = np.linspace(-8, 8, 20001, dtype=np.float32)[:, None]

    @jax.jit
    def ask(p, q, one, other):
        shares = [jax.nn.softmax(each.logits) for each in (p, q)]
        logs = [jax.vmap(each.log_prob)(grid) for each in (one, other)]
        return shares, logs, p.kl(q), one.kl(other)

    shares, logs, kl, of_normals = ask(p, q, one, other)
    x, y = (np.asarray(share, float) for share in shares)
    np.testing.assert_allclose(kl, (x * np.log(x / y)).sum(), rtol=1e-5)
    log, log_other = (np.asarray(log, float) for log in logs)
    found = np.trapezoid(np.exp(log) * (log - log_other), grid[:, 0])
    np.testing.assert_allclose(of_normals, found, rtol=1e-3)


def test_at_first_the_auxiliary_loss_is_of_values_alone():
    learner = CONFIG.make(SPEC).learner
    observation = np.float32([[0.1, 0.2, -0.1, 0.3]])

    @jax.jit
    def ask(key):
        params = learner.network.init(key)
        outputs = learner.network.apply(params, observation)
        extras = {"return": np.float32([2.0]), "old": outputs.policy}
        step = trajectory(reward=[0.0])._replace(observation=observation, extras=extras)
        return outputs, learner.auxiliary_loss(params, step, None, None)

    outputs, (loss, found) = jax.device_get(ask(jax.random.key(0)))
    expected = 0.5 * (outputs.value - 2.0) ** 2 + 0.5 * (outputs.auxiliary - 2.0) ** 2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(found["clone_kl"], 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"shared": True}, "shared must be False, got True"),
        ({"auxiliary_minibatches": 3}, "the 32 steps of a phase must be 6 equal minibatches"),
    ],
)
def test_what_cannot_be_is_said(settings, error):
    with pytest.raises(SettingError, match=error):
        jax.eval_shape(
            lambda: initial.init(dataclasses.replace(CONFIG, **settings).make(SPEC), SPEC, 0, 2)
        )


@pytest.mark.slow
def test_ppg_host_and_device_agree():
    one, other = (trained(CONFIG, 64, t(num_envs=2)) for t in (HostTrainer, DeviceTrainer))
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
    jax.tree.map(close, one.params, other.params)


@pytest.mark.thorough
class TestPPG(AgentConformance):
    config = ppg.Config(phase=2, auxiliary_epochs=2, auxiliary_minibatches=2)
    only = PARTS
