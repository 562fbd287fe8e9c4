"""Agents that are right and say so in ways that the zoo does not, and one that comes to NaN."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from agents_zoo import a2c
from rlws.diagnose import diagnose
from rlws.networks import MLP
from tests.diagnose.healthy import PARTS
from tests.diagnose.right_agents import variant


class Drawn(a2c.A2C):
    """Has a method of the name of one of PPO's, and of another meaning."""

    def samples(self, policy, key):
        return policy.sample(key)


class Counted(a2c.A2C):
    """Has a number of that name."""

    samples: int = 3


class Prepared(a2c.A2C):
    """Its loss needs what its update adds to a batch."""

    def update(self, state, batch, key):
        extras = {**batch.extras, "scale": jnp.ones_like(batch.reward)}
        return super().update(state, batch._replace(extras=extras), key)

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss * trajectory.extras["scale"], metrics


class Silent(a2c.A2C):
    """Does not tell its loss."""

    def update(self, state, batch, key):
        state, metrics = super().update(state, batch, key)
        return state, {name: x for name, x in metrics.items() if name != "loss"}


class Best(a2c.A2C):
    """Calls something of its own `q`, and has a setting of another's name."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        value = self.network.unroll(params, trajectory).value[:-1]
        return loss, {**metrics, "q": jax.lax.stop_gradient(value)}


class Lost(a2c.A2C):
    """Comes to NaN."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss + jnp.log(-jnp.square(metrics["entropy"]) - 1.0), metrics


def config(learner):
    return dataclasses.replace(variant(a2c, learner)(), backbone=MLP((8,)))


@pytest.mark.slow
@pytest.mark.parametrize("learner", [Drawn, Counted, Prepared, Silent, Best])
def test_what_a_stranger_writes_is_healthy(learner):
    report = diagnose(config(learner), only=PARTS)
    assert not report.failures, [(check.name, check.got) for check in report.failures]


@pytest.mark.slow
def test_what_comes_to_nan_ends():
    report = diagnose(config(Lost), only=["P1", "P12"], seeds=2, steps=400)
    assert "NaN" in report.failures[0].advice
