"""What is wrong within a compiled program is named as on a host: who, what, where and the value."""

import dataclasses
import re
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from dm_env import specs
from plain import IN_BLOCKS, ROW_BY_ROW

from rlws.actor import Actor
from rlws.environments.checks import AgentFault, EnvironmentFault
from rlws.environments.jax_environment import JaxEnvironment, first, following
from rlws.trainers import DeviceTrainer, HostTrainer, Member
from rlws.types import EnvironmentSpec

SLOW = pytest.mark.slow
FAULTS = {
    "nan": lambda x: x._replace(observation={**x.observation, "luck": jnp.float32([0, jnp.nan])}),
    "reward": lambda x: x._replace(reward=jnp.float32(jnp.inf)),
    "discount": lambda x: x._replace(discount=jnp.float32(1.25)),
    "first": lambda x: x._replace(step_type=jnp.int32(0)),
}
SAYS = {
    "nan": "observation['luck'] must be finite, got nan",
    "reward": "reward must be finite, got inf",
    "discount": "discount must be within [0, 1], got 1.25",
    "first": "step_type must be FIRST (0) after a LAST (2) and only there, else MID (1) or LAST",
}


class Unlucky(JaxEnvironment):
    """Episodes of six steps; what an unlucky one shows at its third is not what it should be."""

    fault: str = ""
    continuous: bool = False
    at: int = 3

    def spec(self):
        real = specs.BoundedArray((1,), np.float32, -1, 1)
        return EnvironmentSpec(
            observations={"luck": specs.Array((2,), np.float32), "step": specs.Array((), np.int32)},
            actions=real if self.continuous else specs.DiscreteArray(3),
            rewards=specs.Array((), np.float32),
            discounts=specs.BoundedArray((), np.float32, 0, 1),
            max_episode_steps=6,
        )

    def _show(self, state):
        luck, t = state
        return {"luck": jnp.stack([luck, 1 - luck]), "step": t}

    def reset(self, key):
        state = jax.random.uniform(key), jnp.int32(0)
        timestep = first(self._show(state))
        return state, self._spoil(state, timestep) if self.fault and not self.at else timestep

    def step(self, state, action):
        luck, t = state
        state = luck, t + 1
        timestep = following(self._show(state), jnp.float32(1), t + 1 >= 6, False)
        return state, self._spoil(state, timestep) if self.fault and self.at else timestep

    def _spoil(self, state, timestep):
        unlucky = (state[0] > 0.96) & (state[1] == self.at)
        pick = lambda bad, good: jnp.where(unlucky, bad, good)
        return jax.tree.map(pick, FAULTS[self.fault](timestep), timestep)


def said(trainer, config, environment, error=EnvironmentFault, seed=0):
    with pytest.raises(error) as raised:
        for _ in trainer.train(config, environment, seed=seed, steps=2_000):
            pass
    return str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "fault"),
    [
        # In blocks, and of one, where the row before is what counts.
        pytest.param(ROW_BY_ROW, "first", marks=SLOW),
        *(pytest.param(IN_BLOCKS, fault, marks=[SLOW] * (fault != "nan")) for fault in FAULTS),
    ],
)
def test_faults_of_environments_are_named_as_on_a_host(config, fault):
    environment = Unlucky(fault)
    device = said(DeviceTrainer(num_envs=3), config, environment)
    host = said(HostTrainer(num_envs=3), config, environment)
    assert device == f"Unlucky, {host}"
    assert SAYS[fault] in host
    episode = int(re.search(r"episode (\d+), step 3: ", host)[1])
    assert episode > 0, "the test would see too little"


def test_the_first_timestep_of_all_is_looked_at_before_anything_is_compiled():
    environment = Unlucky("nan", at=0)
    text = said(DeviceTrainer(num_envs=256), IN_BLOCKS, environment)
    assert re.match(r"Unlucky, environment \d+, episode 0, step 0: observation\['luck'\]", text)


@pytest.mark.slow
def test_the_member_that_is_wrong_ends_all_and_is_right_about_where():
    environment = Unlucky("reward")
    alone = [said(DeviceTrainer(num_envs=2), IN_BLOCKS, environment, seed=seed) for seed in (0, 1)]
    trainer = DeviceTrainer(num_envs=2, num_seeds=2)
    members = [Member(0, {}), Member(1, {})]
    with pytest.raises(EnvironmentFault) as raised:
        list(trainer.train_all(IN_BLOCKS, environment, members, steps=2_000))
    assert str(raised.value) in alone


class Reckless(Actor):
    """Chooses what is no action, where it is lucky."""

    actor: Actor
    bad: Any

    def initial_state(self):
        return self.actor.initial_state()

    def select_action(self, params, timestep, state, key):
        action, state, extras = self.actor.select_action(params, timestep, state, key)
        lucky = (timestep.observation["luck"][0] < 0.1) & (timestep.observation["step"] == 2)
        return jnp.where(lucky, self.bad, action).astype(action.dtype), state, extras


class RecklessConfig(plain.Config):
    bad: Any = 7.0

    def make(self, spec):
        agent = super().make(spec)
        return dataclasses.replace(agent, actor=Reckless(agent.actor, self.bad))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("continuous", "bad", "says"),
    [
        (False, 7.0, "action must be within [0, 2], got 7"),
        (True, np.nan, "action must be finite, got nan"),
    ],
)
def test_a_policy_is_blamed_for_what_is_no_action(continuous, bad, says):
    config = RecklessConfig(IN_BLOCKS.adder, bad=bad)
    environment = Unlucky(continuous=continuous)
    device = said(DeviceTrainer(num_envs=3), config, environment, AgentFault)
    host = said(HostTrainer(num_envs=3), config, environment, AgentFault)
    assert says in device
    place = r"environment \d+, episode \d+, step 3"
    assert re.search(place, device)[0] == re.search(place, host)[0]


@pytest.mark.slow
def test_healthy_runs_with_all_of_this_within_reach_go_on():
    *_, last = DeviceTrainer(num_envs=3).train(IN_BLOCKS, Unlucky(), steps=500)
    assert last.steps >= 500
    assert isinstance(last.agent.actor, Actor)
    assert dm_env.StepType.FIRST == 0
