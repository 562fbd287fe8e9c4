"""Checks of targets: each passes an agent that is right, and names the fault it is about."""

import dataclasses

import jax.numpy as jnp
import pytest

from agents_zoo import a2c
from rlws.diagnose.subject import Subject
from rlws.diagnose.tabular import Tabular, make_table
from rlws.diagnose.targets import check_targets
from rlws.networks import MLP
from tests.diagnose.test_doctor import planted

SMALL = dict(backbone=MLP((8,)), unroll_length=8, discount=0.9)
PLANTED = {
    "": lambda x: x,
    "rewards": lambda x: x._replace(reward=jnp.clip(x.reward, -1, 1)),
    "bootstrap": lambda x: x._replace(discount=0.5 * x.discount),
    "split": lambda x: x._replace(reward=jnp.cumsum(x.reward[::-1])[::-1]),
}


SPEC = Tabular(make_table()).spec()


@pytest.fixture(scope="module")
def batch():
    """Returns a batch of what an agent that is right did."""
    batch = Subject(a2c.Config(**SMALL), SPEC).batches[0]
    assert batch.last.any()
    return batch


def seeing(change):
    """Returns the settings of an agent whose loss sees trajectories otherwise than they are."""

    class Wrong(a2c.A2C):
        def loss(self, params, trajectory, key, state):
            return super().loss(params, change(trajectory), key, state)

    return dataclasses.replace(planted(a2c, Wrong), **SMALL)


def checks(batch, config, discount):
    found = check_targets(Subject(config, SPEC, discount), batch)
    return {check.name.removeprefix("learner: "): check.verdict for check in found}


@pytest.mark.parametrize("fault", PLANTED)
@pytest.mark.slow
def test_a_fault_fails_the_check_that_is_about_it(batch, fault):
    found = checks(batch, seeing(PLANTED[fault]), 0.9)
    failed = {name for name, verdict in found.items() if verdict == "fail"}
    assert failed == ({fault} if fault else set())


@pytest.mark.parametrize(("discount", "verdict"), [(0.8, "fail"), (None, "skip")])
def test_another_discount_than_is_said_is_noticed(batch, discount, verdict):
    assert checks(batch, a2c.Config(**SMALL), discount)["bootstrap"] == verdict
