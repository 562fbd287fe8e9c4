"""An agent does not know in which unit an environment takes actions: it learns the same in any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import a2c, ppo, sac, td3
from rlws.diagnose import probes
from rlws.diagnose.tabular import Tabular
from rlws.diagnose.toy import toy
from rlws.trainers import DeviceTrainer

TABLE = jax.tree.map(jnp.asarray, probes.chain())


class Scaled(Tabular):
    """The same task, whose actions are as much as the unit larger."""

    unit: float = 1.0

    def spec(self):
        actions = specs.BoundedArray((1,), np.float32, -self.unit, self.unit, "action")
        return super().spec()._replace(actions=actions)

    def step(self, state, action):
        return super().step(state, action / self.unit)


@pytest.mark.slow
@pytest.mark.parametrize(
    "agent",
    [sac, *(pytest.param(x, marks=pytest.mark.thorough) for x in (td3, a2c, ppo))],
    ids=lambda x: x.__name__,
)
def test_an_agent_learns_the_same_in_any_unit_of_actions(agent):
    found = []
    for unit in (1.0, 2.0**-6):
        environment = Scaled(TABLE, True, unit=unit)
        runs = DeviceTrainer(num_envs=2).train(toy(agent.Config()), environment, steps=260)
        found.append(list(runs)[-1])
    one, other = found
    assert one[:3] == other[:3]
    assert one.updates > 2
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, *(jax.device_get(run.params) for run in found))
