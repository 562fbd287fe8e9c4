"""A cycle that a time limit cuts after 8 steps: worth 50 by each adder, trainer and binding.

Stable-Baselines3 tests its advantages so; treating the limit as an end would give 5.67 on average.
"""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents_zoo import dqn, ppo, td3
from rlws.diagnose import probes
from rlws.diagnose.tabular import FEATURES, Tabular
from rlws.diagnose.value_estimates import sequence
from rlws.environments import registry
from rlws.networks import MLP
from rlws.trainers import DeviceTrainer, HostTrainer

GAMMA, STATES, LIMIT = 0.98, 4, 8
TABLE = jax.tree.map(jnp.asarray, probes.cycle())
TABLE = TABLE._replace(reward=10 * TABLE.reward)  # of 1


class Cycle(gymnasium.Env):
    """Goes around four states, whatever is done, and is never done with it."""

    observation_space = spaces.Box(0, 1, (FEATURES,), np.float32)

    def __init__(self, continuous=False):
        self.action_space = (
            spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._state = self.np_random.integers(STATES)
        return np.eye(FEATURES, dtype=np.float32)[self._state], {}

    def step(self, action):
        self._state = (self._state + 1) % STATES
        return np.eye(FEATURES, dtype=np.float32)[self._state], 1.0, False, False, {}


@pytest.fixture(autouse=True)
def _registered():
    for name, settings in (("Cycle-v0", {}), ("Cycle-v1", {"continuous": True})):
        gymnasium.register(name, Cycle, max_episode_steps=LIMIT, kwargs=settings)
    yield
    for name in ("Cycle-v0", "Cycle-v1"):
        del gymnasium.registry[name]


FAST = dict(backbone=MLP((32,)), discount=GAMMA)
UNROLLS = dict(learning_rate=1e-2, unroll_length=8, max_gradient_norm=1e3, **FAST)
PLAIN = dict(normalise_observations=False, scale_rewards=False)
REPLAY = dict(min_size=100, capacity=2_000, batch_size=32, **FAST)
CRITICS = dict(target_rate=0.1, critic_learning_rate=1e-2, **REPLAY)
AGENTS = {
    "ppo": ppo.Config(epochs=2, minibatches=4, **UNROLLS, **PLAIN),
    "dqn": dqn.Config(learning_rate=3e-3, target_period=10, max_gradient_norm=1e3, **REPLAY),
    "td3": td3.Config(**CRITICS),
}
# That each agent bootstraps here, probe P6 of the doctor says. What is left is how a limit gets
# from an environment to the adder, be it of unrolls or a replay.
TOGETHER, ON_DEVICE = HostTrainer(num_envs=4, vectorization="sync"), "limits:Cycle"
CASES = [("ppo", TOGETHER, "gym:Cycle-v0"), ("td3", TOGETHER, "gym:Cycle-v0")]
CASES += [("dqn", HostTrainer(), "gym:Cycle-v0"), ("ppo", DeviceTrainer(num_envs=4), ON_DEVICE)]


def believed(config, trainer, environment, steps=10_000):
    """Returns what an agent thinks the four states are worth."""
    continuous = isinstance(config, td3.Config)
    environment = environment.replace("v0", "v1") if continuous else environment
    *_, last = trainer.train(config, environment, steps=steps, report_period=steps)
    learner = config.make(Tabular(TABLE, continuous).spec()).learner
    observations = np.eye(FEATURES, dtype=np.float32)[:STATES]
    core = learner.network.initial_state()
    seen = sequence({"core": core}, observations, np.arange(STATES) == 0)
    return jax.device_get(learner.value(last.params, seen))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "trainer", "environment"), CASES)
def test_a_time_limit_is_no_end(name, trainer, environment, monkeypatch):
    monkeypatch.setitem(registry._factories, ON_DEVICE, lambda: Tabular(TABLE))
    np.testing.assert_allclose(believed(AGENTS[name], trainer, environment), 50, atol=1)
