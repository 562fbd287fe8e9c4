"""Every agent learns from nests of observations of different kinds: numbers, categories, levels."""

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import a2c, awr, ddpg, discrete_sac, dqn, impala, mpo, ppo, sac, td3, vmpo
from rlws import networks
from rlws.trainers import HostTrainer, core, initial
from rlws.types import EnvironmentSpec

SMALL = networks.MLP((8,))
REPLAY = {"min_size": 20, "capacity": 60, "batch_size": 4}
AGENTS = {
    "a2c": a2c.Config(SMALL),
    "impala": impala.Config(SMALL, unroll_length=8),
    "ppo": ppo.Config(SMALL, unroll_length=16, epochs=2, minibatches=2),
    "recurrent ppo": ppo.Config(
        networks.GRU(SMALL, 8), unroll_length=16, sequence_length=4, epochs=2, minibatches=2
    ),
    "dqn": dqn.Config(SMALL, prioritised=True, n_step=2, **REPLAY),
    "sac": sac.Config(SMALL, random_steps=5, **REPLAY),
    "td3": td3.Config(SMALL, random_steps=5, **REPLAY),
    "ddpg": ddpg.Config(SMALL, random_steps=5, **REPLAY),
    "discrete sac": discrete_sac.Config(SMALL, random_steps=5, **REPLAY),
    "mpo": mpo.Config(SMALL, **REPLAY),
    "vmpo": vmpo.Config(SMALL, unroll_length=8),
    "awr": awr.Config(SMALL, sequence_length=4, **REPLAY),
}
CONTINUOUS = sac.Config | td3.Config | mpo.Config


class Nested(dm_env.Environment):
    """Episodes of five steps; reward 1."""

    def __init__(self, seed, continuous):
        self._rng = np.random.default_rng(seed)
        self._continuous = continuous
        self._t = 0

    def reset(self):
        self._t = 0
        return dm_env.restart(self._observation())

    def step(self, action):
        self._t += 1
        if self._t == 5:
            return dm_env.truncation(1.0, self._observation())
        return dm_env.transition(1.0, self._observation())

    def _observation(self):
        position = self._rng.normal(size=2).astype(np.float32)
        levels = self._rng.integers(0, 256, (3,)).astype(np.uint8)
        return {"position": position, "seen": (np.int64(self._t % 3), levels)}

    def observation_spec(self):
        levels = specs.BoundedArray((3,), np.uint8, 0, 255)
        return {
            "position": specs.Array((2,), np.float32),
            "seen": (specs.DiscreteArray(3, np.int64), levels),
        }

    def action_spec(self):
        if self._continuous:
            return specs.BoundedArray((2,), np.float32, -1.0, 1.0)
        return specs.DiscreteArray(3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["recurrent ppo", "dqn", pytest.param("sac", marks=pytest.mark.thorough)]
)
def test_agents_learn_from_nested_observations(name):
    config = AGENTS[name]
    make = lambda seed, index: Nested(seed, isinstance(config, CONTINUOUS))
    first, *_, last = HostTrainer(num_envs=2).train(config, make, steps=80)
    assert last.updates > 0
    assert all(np.isfinite(x) for x in last.metrics.values())
    shapes = lambda params: jax.tree.map(np.shape, params)
    assert shapes(first.params) == shapes(last.params)
    assert all(value == 5 for value in last.returns)


# One of each kind; what is done with a nest is not theirs.
SOON = {"recurrent ppo", "dqn", "sac"}


@pytest.mark.parametrize(
    "config",
    [pytest.param(x, marks=[pytest.mark.slow] * (k not in SOON)) for k, x in AGENTS.items()],
    ids=AGENTS,
)
@pytest.mark.slow
def test_agents_take_nested_observations(config):
    """Whatever the agent, its actor, adder, loss and update can be traced with them."""
    environment = Nested(0, isinstance(config, CONTINUOUS))
    spec = EnvironmentSpec(
        environment.observation_spec(),
        environment.action_spec(),
        environment.reward_spec(),
        environment.discount_spec(),
    )
    agent = config.make(spec)

    def update():
        state = initial.init(agent, spec, 0, 2)
        after = core.update(agent, state.learner, state.adder, initial.seed_key())[0]
        return state.learner.params, after.params

    before, after = jax.eval_shape(update)
    assert before == after
