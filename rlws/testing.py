"""Tests that any agent inherits: one class, one line.

class TestMine(AgentConformance):
    config = my_agent.Config()
"""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import AgentConfig
from rlws.diagnose import Report, diagnose
from rlws.diagnose.applicable import is_continuous
from rlws.diagnose.probes import chain
from rlws.diagnose.probing import SEEDS
from rlws.diagnose.tabular import Tabular
from rlws.diagnose.toy import toy
from rlws.trainers import DeviceTrainer, HostTrainer


class AgentConformance:
    """What every agent must do; pytest collects it in a subclass named Test...

    Of the agent, a toy version is tested (`rlws.diagnose.toy`).
    """

    config: ClassVar[AgentConfig]
    actions: ClassVar[str] = ""  # "discrete" or "continuous"; default: what it can be made for
    discount: ClassVar[float | None] = None  # gamma, if no setting is called discount
    skip: ClassVar[tuple[str, ...]] = ()  # names of checks that are known not to hold
    only: ClassVar[tuple[str, ...]] = ()  # beginnings of the names of checks; default: all
    seeds: ClassVar[int] = SEEDS  # of each problem with a known answer

    def test_the_actor_is_sound(self):
        self._passes("actor")

    def test_the_adder_cuts_experience_where_it_may(self):
        self._passes("adder")

    def test_the_learner_counts_what_it_should(self):
        self._passes("learner")

    def test_it_solves_problems_with_known_answers(self):
        self._passes("P")

    def test_host_and_device_agree(self):
        config = toy(self.config)
        table = jax.tree.map(jnp.asarray, chain())
        environment = Tabular(table, is_continuous(config, self.actions))
        reports = [
            list(trainer.train(config, environment, steps=400, report_period=400))[-1]
            for trainer in (HostTrainer(num_envs=2), DeviceTrainer(num_envs=2))
        ]
        host, device = reports
        assert host.updates == device.updates > 0
        assert (host.steps, host.episodes) == (device.steps, device.episodes)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-3),
            *map(jax.device_get, (host.params, device.params)),
        )

    @classmethod
    @functools.cache
    def report(cls) -> Report:
        """Returns what the doctor says of the agent, who is asked once about all of it."""
        return diagnose(
            cls.config, actions=cls.actions, discount=cls.discount, seeds=cls.seeds, only=cls.only
        )

    def _passes(self, part: str):
        checks = [c for c in self.report().failures if c.name.startswith((part, "agent"))]
        failures = [check for check in checks if check.name not in self.skip]
        assert not failures, "\n".join(
            f"{c.name}: expected {c.expected}, got {c.got}; {c.advice} ({c.component})"
            for c in failures
        )
