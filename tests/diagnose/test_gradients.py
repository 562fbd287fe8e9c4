"""Checks of gradients with respect to outputs: each passes who is right, and names its fault."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from agents_zoo import a2c, ppo, sac, td3
from rlws.diagnose.gradients import check_gradients_of_outputs
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import Tabular, make_table
from rlws.networks import MLP
from tests.diagnose.test_doctor import planted

SMALL = dict(backbone=MLP((8,)))
UNROLLS = dict(SMALL, unroll_length=8, discount=0.9)
OFFLINE = dict(SMALL, capacity=64, min_size=8, batch_size=4, discount=0.9)


class Late(a2c.A2C):
    """Tells the values of the observation after each step."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        value = self.network.unroll(params, trajectory).value
        return loss, {**metrics, "value": value[1:]}


class Leaking(a2c.A2C):
    """Its traces run on into the episode after a time limit."""

    def loss(self, params, trajectory, key, state):
        never = jnp.zeros_like(trajectory.last)
        return super().loss(params, trajectory._replace(last=never), key, state)


class Cut(a2c.A2C):
    """Takes a time limit for an end."""

    def loss(self, params, trajectory, key, state):
        ended = trajectory._replace(discount=trajectory.discount * ~trajectory.last)
        return super().loss(params, ended, key, state)


class Apart(a2c.A2C):
    """Draws values to something else than their targets."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss + 2.0 * self.config.value_cost * metrics["value"] * metrics["target"], metrics


class SumOfLogs(ppo.PPO):
    """Its ratio has the wrong sign: pi^2 instead of 1 where nothing has moved."""

    def loss(self, params, trajectory, key, state):
        extras = trajectory.extras
        turned = {**extras, "log_prob": -extras["log_prob"]}
        return super().loss(params, trajectory._replace(extras=turned), key, state)


class NoRatio(ppo.PPO):
    """Takes the policy that learns for the one that acted."""

    def loss(self, params, trajectory, key, state):
        policy = self.network.unroll(jax.lax.stop_gradient(params), trajectory).policy
        extras = {**trajectory.extras, "log_prob": policy.log_prob(trajectory.action)}
        return super().loss(params, trajectory._replace(extras=extras), key, state)


def failed(config, continuous):
    subject = Subject(config, Tabular(make_table(), continuous).spec(), 0.9)
    checks = list(check_gradients_of_outputs(subject))
    assert any(check.verdict == "pass" for check in checks), "nothing was looked at"
    return {check.name.removeprefix("learner: ") for check in checks if check.verdict == "fail"}


def of(module, learner, settings):
    """Returns settings of a module's agent with another learner, if there is one."""
    config = module.Config() if learner is None else planted(module, learner)
    return dataclasses.replace(config, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(a2c.Config(**UNROLLS), set(), id="right", marks=pytest.mark.slow),
        pytest.param(of(a2c, Late, UNROLLS), {"reported"}, id="late", marks=pytest.mark.slow),
        pytest.param(of(a2c, Apart, UNROLLS), {"values"}, id="apart"),
        pytest.param(of(a2c, Leaking, UNROLLS), {"ends"}, id="leaking", marks=pytest.mark.slow),
        pytest.param(of(a2c, Cut, UNROLLS), {"ends"}, id="cut", marks=pytest.mark.slow),
    ],
)
def test_a_fault_of_values_is_told(config, expected):
    assert failed(config, False) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "expected"),
    [(None, set()), (SumOfLogs, {"ratio"}), (NoRatio, {"ratio"})],
)
def test_a_fault_of_ratios_is_told(learner, expected):
    found = failed(of(ppo, learner, dict(UNROLLS, epochs=1, minibatches=1)), False)
    assert expected <= found
    assert bool(expected) == bool(found)


class Bold(sac.SAC):
    """Believes the highest critic."""

    def cautious(self, said, key):
        return said.take(jnp.argmax(said.mean(), axis=-1))


class Stale(td3.TD3):
    """Takes what critics say of the observation before the step for what follows it."""

    def loss(self, params, trajectory, key, state):
        seen = trajectory.observation
        again = seen.at[1:].set(seen[:-1])
        return super().loss(params, trajectory._replace(observation=again), key, state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "learner", "expected"),
    [
        (sac, None, set()),
        (sac, Bold, {"caution"}),
        (td3, None, set()),
        (td3, Stale, {"following"}),
    ],
)
def test_a_fault_of_targets_is_told(module, learner, expected):
    assert failed(of(module, learner, OFFLINE), True) == expected
