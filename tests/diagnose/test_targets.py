"""Checks of targets: each passes an agent that is right, and names the fault it is about."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import a2c
from rlws.diagnose.adders import collect
from rlws.diagnose.stream import NUM_ENVS, make_stream
from rlws.diagnose.tabular import Tabular, blank
from rlws.diagnose.targets import check_targets
from rlws.networks import MLP
from rlws.trainers import core

CONFIG = a2c.Config(MLP((8,)), unroll_length=8, discount=0.9)
PLANTED = {
    "": lambda x: x,
    "rewards": lambda x: x._replace(reward=jnp.clip(x.reward, -1, 1)),
    "bootstrap": lambda x: x._replace(discount=0.5 * x.discount),
    "split": lambda x: x._replace(reward=jnp.cumsum(x.reward[::-1])[::-1]),
}


def planted(fault):
    """Returns the agent, its state and a batch, which its loss sees otherwise than it is."""
    spec = Tabular(blank()).spec()
    agent = CONFIG.make(spec)

    class Wrong(type(agent.learner)):
        def loss(self, params, trajectory, key, state):
            return super().loss(params, PLANTED[fault](trajectory), key, state)

    kept = {f.name: getattr(agent.learner, f.name) for f in dataclasses.fields(agent.learner)}
    agent = agent._replace(learner=Wrong(**kept))
    state = jax.jit(lambda: core.init(agent, spec, 0, NUM_ENVS))()
    batches, found = collect(agent, state, make_stream(agent, spec, state))
    list(found)
    assert np.asarray(batches[0].last).any()
    return agent, state.learner, jax.tree.map(jnp.asarray, batches[0])


@pytest.mark.slow
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_fails_the_check_that_is_about_it(fault):
    checks = {check.name: check for check in check_targets(*planted(fault), gamma=0.9)}
    failed = {name for name, check in checks.items() if check.verdict == "fail"}
    assert failed == ({f"learner: {fault}"} if fault else set())


def test_another_discount_than_is_said_is_noticed():
    checks = {check.name: check for check in check_targets(*planted(""), gamma=0.8)}
    assert checks["learner: bootstrap"].verdict == "fail"
    checks = {check.name: check for check in check_targets(*planted(""), gamma=None)}
    assert checks["learner: bootstrap"].verdict == "skip"
