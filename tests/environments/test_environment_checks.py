"""Environments that do not do what they say are named before anything is compiled."""

import dataclasses

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import reinforce
from rlws.environments import rules
from rlws.settings import SettingError
from rlws.trainers import HostTrainer


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Pair:
    first: object
    second: object


class Liar(dm_env.Environment):
    """Says its observations are {"x": float32 [2]}, and has others."""

    max_episode_steps = 5

    def __init__(self, observation, num_actions=2, first=dm_env.restart):
        self._observation, self._num_actions, self._first = observation, num_actions, first

    def reset(self):
        return self._first(self._observation)

    def step(self, action):
        return dm_env.transition(0.0, self._observation)

    def observation_spec(self):
        return {"x": specs.Array((2,), np.float32)}

    def action_spec(self):
        return specs.DiscreteArray(self._num_actions)


def train(make, num_envs=1):
    list(HostTrainer(num_envs=num_envs).train(reinforce.Config(), make, steps=10))


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"x": np.zeros(1, np.float32)}, r"\['x'\] must be float32\[2\], .* got float32\[1\]"),
        ({"x": np.zeros((1, 2), np.float32)}, r"got float32\[1, 2\]"),
        ({"x": np.zeros(2, complex)}, r"got complex128\[2\]"),
        ({"x": np.float32([0, np.nan])}, r"\['x'\] must be finite"),
        ({"y": np.zeros(2, np.float32)}, r"must be \{'x': ...\}, .* got \{'y': ...\}"),
        (np.zeros(2, np.float32), r"must be \{'x': ...\}"),
    ],
)  # fmt: skip
def test_a_first_observation_unlike_its_spec_is_named(observation, message):
    with pytest.raises(SettingError, match=f"environment 0, episode 0, step 0: .*{message}"):
        train(lambda seed, index: Liar(observation))


def test_a_wider_number_of_the_same_kind_is_fine():
    train(lambda seed, index: Liar({"x": np.zeros(2)}))


def test_a_first_timestep_must_be_one():
    wrong = lambda observation: dm_env.transition(0.0, observation)
    with pytest.raises(
        SettingError, match="environment 0, episode 0, step 0: reset must return a FIRST"
    ):
        train(lambda seed, index: Liar({"x": np.zeros(2)}, first=wrong))


def test_environments_of_a_run_are_alike():
    make = lambda seed, index: Liar({"x": np.zeros(2, np.float32)}, num_actions=2 + index)
    with pytest.raises(SettingError, match="environment 1: its actions must be those of"):
        train(make, num_envs=2)


def test_unlike_takes_what_jax_takes():
    number = specs.Array((2,), np.float32)
    spec = {"none": None, "pair": Pair(number, {"x": number})}
    nest = {"none": None, "pair": Pair(np.zeros(2, np.float32), {"x": np.zeros(3, np.float32)})}
    found = rules.unlike(spec, nest)
    assert found.startswith("['pair'].second['x'] must be float32[2]")
    assert found.endswith("got float32[3]")
