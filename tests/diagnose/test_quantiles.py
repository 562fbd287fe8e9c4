"""Critics that say quantiles are asked for the distribution of a coin."""

import jax.numpy as jnp
import optax
import pytest

from agents_zoo import dqn
from rlws.diagnose import diagnose
from rlws.diagnose.tabular import Tabular, make_table
from rlws.diagnose.value_estimates import has_quantiles
from tests.diagnose.right_agents import QuantileConfig, QuantileDQN, take
from tests.diagnose.test_doctor import planted

SPEC = Tabular(make_table()).spec()


class Means(QuantileDQN):
    """The axis of the targets is taken for that of the quantiles: all tend to the mean."""

    def loss(self, params, trajectory, key, state):
        outputs = self.network.unroll(params, trajectory.without_final())
        ours = take(outputs.quantiles, trajectory.action)
        following = self.network.unroll_following(state.extra, trajectory)
        theirs = take(following.quantiles, jnp.argmax(following.q, axis=-1))
        gamma = self.config.discount * trajectory.discount
        targets = trajectory.reward[:, None] + gamma[:, None] * theirs
        error = targets[:, :, None] - ours[:, None, :]
        tau = (jnp.arange(ours.shape[-1]) + 0.5) / ours.shape[-1]
        loss = jnp.abs(tau[None, :, None] - (error < 0)) * optax.huber_loss(error)
        return loss.mean(axis=2).sum(axis=1), {}


class Module:
    Config = QuantileConfig


def test_quantiles_are_noticed():
    assert has_quantiles(QuantileConfig().make(SPEC), SPEC)
    assert not has_quantiles(dqn.Config().make(SPEC), SPEC)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "healthy"),
    [
        pytest.param(QuantileConfig(), True, marks=pytest.mark.thorough),
        (planted(Module, Means), False),
    ],
)
def test_a_coin_has_two_sides(config, healthy):
    report = diagnose(config, only=["P14"], seeds=2, steps=2000)
    assert [check.name for check in report.failures] == ([] if healthy else ["P14 coin"])
