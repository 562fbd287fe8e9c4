"""Learning while the next block is played: how old the parameters are, and what stays the same."""

import dataclasses

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_env import specs

from agents_zoo import dqn, ppo
from rlws import networks
from rlws.actor import Actor
from rlws.adders import Unrolls
from rlws.agent import Agent, AgentConfig
from rlws.learner import Learner
from rlws.networks import Network
from rlws.trainers import HostTrainer

LENGTH = 4
CONFIGS = {
    "ppo": ppo.Config(networks.MLP((8,)), unroll_length=16, epochs=2, minibatches=2),
    "dqn": dqn.Config(
        networks.MLP((8,)), min_size=20, capacity=100, batch_size=8, period=4, epsilon_start=0.0
    ),
}


class Config(AgentConfig):
    """Its parameters count updates, and its rows say by which they were acted."""

    def make(self, spec):
        network = Network(lambda key: {"version": jnp.float32(0)}, lambda params, x: x)
        actor = Recording(network)
        return Agent(actor, Counting(network, optax.sgd(0.0)), Unrolls(LENGTH), actor)


class Recording(Actor):
    network: Network

    def select_action(self, params, timestep, state, key):
        return jnp.int32(1), state, {"version": params["version"]}


class Counting(Learner):
    def update(self, state, batch, key):
        age = state.params["version"] - batch.extras["version"]
        params = {"version": state.params["version"] + 1}
        return state._replace(params=params), {"oldest": age.max(), "newest": age.min()}


class Endless(dm_env.Environment):
    def reset(self):
        return dm_env.restart(np.zeros(2, np.float32))

    def step(self, action):
        return dm_env.transition(0.0, np.zeros(2, np.float32))

    def observation_spec(self):
        return specs.Array((2,), np.float32)

    def action_spec(self):
        return specs.DiscreteArray(3)


@pytest.mark.exact
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_parameters_are_one_update_old_with_overlap_and_never_older(overlap, num_envs):
    trainer = HostTrainer(num_envs=num_envs, overlap=overlap)
    environment = lambda seed, index: Endless()
    # Reports, which wait for the learner, in the middle of blocks and at their ends.
    for period in (LENGTH * num_envs, 7, 1000):
        reports = trainer.train(Config(), environment, steps=40 * num_envs, report_period=period)
        found = [r.metrics for r in reports if r.metrics]
        ages = {m["oldest"] for m in found} | {m["newest"] for m in found}
        if period == LENGTH * num_envs:  # one update between two reports
            assert ages == ({0.0, 1.0} if overlap else {0.0})  # 0: of the very first block
        assert all(m["oldest"] == m["newest"] for m in found)
        assert max(ages) <= overlap


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_run_with_overlap_repeats_itself_and_takes_as_many_updates(config):
    def run(overlap, period=40):
        trainer = HostTrainer(num_envs=2, overlap=overlap)
        return list(trainer.train(config, "jax:Catch", steps=200, report_period=period))[-1]

    lagging, again, often, prompt = run(True), run(True), run(True, 11), run(False)
    for other in (again, often):
        jax.tree.map(
            np.testing.assert_array_equal, *map(jax.device_get, (lagging.params, other.params))
        )
    assert lagging.updates == prompt.updates > 3
    same = jax.tree.map(np.array_equal, *map(jax.device_get, (lagging.params, prompt.params)))
    if isinstance(config, ppo.Config):  # greedy actions are the same for a while
        assert not all(jax.tree.leaves(same))


@pytest.mark.slow
def test_an_error_of_the_learner_reaches_the_caller():
    class Failing(Counting):
        def update(self, state, batch, key):
            jax.debug.callback(self.fail, state.updates)
            return super().update(state, batch, key)

        def fail(self, updates):
            if updates == 2:
                raise RuntimeError("no third update")

    class FailingConfig(Config):
        def make(self, spec):
            agent = super().make(spec)
            learner = Failing(agent.learner.network, agent.learner.optimizer)
            return dataclasses.replace(agent, learner=learner)

    trainer = HostTrainer(overlap=True)
    with pytest.raises(Exception, match="no third update"):
        list(trainer.train(FailingConfig(), lambda seed, index: Endless(), steps=40))
