"""Checks of a learner: what passes whoever is right, and names the fault it is about."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from agents_zoo import a2c, dqn, reinforce
from rlws.diagnose.learners import check_learner
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import Tabular, make_table
from rlws.diagnose.toy import toy
from rlws.networks import MLP
from tests.diagnose.right_agents import ExpectedSarsa, LeaveOneOut, variant


class SummedLeaveOneOut(LeaveOneOut):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss * jax.lax.psum(jnp.ones(()), "batch"), metrics


class DividedLeaveOneOut(LeaveOneOut):
    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss / jax.lax.psum(jnp.ones(()), "batch"), metrics


class Online(ExpectedSarsa):
    """What follows is what the network itself says."""

    def following(self, constant, state, trajectory):
        return super().following(constant, state._replace(extra=constant), trajectory)


class Residual(ExpectedSarsa):
    """The target network's value, and a little of a gradient through what follows."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        q_t = self.network.unroll_following(params, trajectory).q.max(axis=-1)
        moving = q_t - jax.lax.stop_gradient(q_t)
        return loss + trajectory.discount * moving, metrics


class Coupled(a2c.A2C):
    """The gradient of the advantage reaches the value of what follows."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        value = self.network.unroll(params, trajectory).value
        return loss + trajectory.discount * value[1:], metrics


class Deaf(a2c.A2C):
    """What follows counts the same, whatever the discount."""

    def loss(self, params, trajectory, key, state):
        config = dataclasses.replace(self.config, discount=0.9)
        return a2c.A2C(**vars(self) | {"config": config}).loss(params, trajectory, key, state)


def failed(module, learner, **settings):
    """Returns the names of the checks of a learner that fail."""
    config = variant(module, learner)(**settings)
    config = dataclasses.replace(toy(config), backbone=MLP((8,)))
    subject = Subject(config, Tabular(make_table()).spec(), 0.9)
    checks = check_learner(subject)
    return {check.name for check in checks if check.verdict == "fail"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "fails"),
    [(LeaveOneOut, False), (SummedLeaveOneOut, True), (DividedLeaveOneOut, True)],
)
def test_what_a_trajectory_makes_of_its_batch_settles(learner, fails):
    found = failed(reinforce, learner, baseline="none")  # psum(1) counts padding, too
    assert ("learner: copies" in found) == fails == bool(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "learner", "names"),
    [
        (dqn, ExpectedSarsa, set()),
        (dqn, Online, {"learner: targets"}),
        (dqn, Residual, {"learner: semi-gradient"}),
        (a2c, a2c.A2C, set()),
        (a2c, Coupled, {"learner: semi-gradient"}),
        (a2c, Deaf, {"learner: discount"}),
    ],
)
def test_targets_are_of_the_target_network_constant_and_discounted(module, learner, names):
    found = failed(module, learner)
    assert found & {"learner: targets", "learner: semi-gradient", "learner: discount"} == names
