"""Environments by name."""

import importlib.util
import subprocess
import sys

import dm_env
import gymnasium
import numpy as np
import pytest

from rlws import environments
from rlws.environments import registry
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.settings import SettingError

CARTPOLES = "'gym:CartPole-v1' or 'jax:CartPole-v1'"
if importlib.util.find_spec("gymnax"):
    CARTPOLES = "'gym:CartPole-v1' or 'gymnax:CartPole-v1' or 'jax:CartPole-v1'"


def test_make_returns_each_kind():
    assert environments.make("jax:CartPole-v1", seed=1, index=2) == environments.CartPole()
    assert environments.make("jax:Catch") == environments.Catch()
    gym = environments.make("gym:CartPole-v1", seed=1, index=2)
    assert isinstance(gym, GymEnvironment)
    expected = GymEnvironment("CartPole-v1", 1, 2).reset().observation
    np.testing.assert_array_equal(gym.reset().observation, expected)


def test_make_overrides_time_limits():
    assert environments.make("jax:CartPole-v1", max_episode_steps=7).max_episode_steps == 7
    assert environments.make("gym:CartPole-v1", max_episode_steps=7).max_episode_steps == 7
    with pytest.raises(SettingError, match=r"'jax:Catch' has no setting 'max_episode_steps'"):
        environments.make("jax:Catch", max_episode_steps=7)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gym:CartPoll-v1", "did you mean 'gym:CartPole-v1'?"),
        ("gym:CartPole-v9", "did you mean 'gym:CartPole-v1'?"),
        ("gym:CartPole", "did you mean 'gym:CartPole-v1'?"),
        ("gym:LunarLander-v2", "did you mean 'gym:LunarLander-v3'?"),
        ("CartPole-v1", f"did you mean {CARTPOLES}?"),
        ("gymnasium:CartPole-v1", f"did you mean {CARTPOLES}?"),
        ("jax:Cach", "did you mean 'jax:Catch'?"),
        ("jax:CartPole-v0", "did you mean 'jax:CartPole-v1'?"),
        ("jax:Catch\n", "did you mean 'jax:Catch'?"),
        ("xyzzy", "rlws.environments.available() lists the names"),
        ("gym:Elsewhere/Xyzzy-v5", "'gym:module:Id-v0' imports the module that registers an id"),
    ],
)
def test_unknown_name_says_what_was_meant(name, remedy):
    with pytest.raises(SettingError) as error:
        environments.make(name)
    assert str(error.value) == f"environment: unknown name {name!r}; {remedy}"


def test_available_lists_all_kinds():
    names = environments.available()
    assert {"gym:CartPole-v1", "jax:CartPole-v1", "jax:Catch"} <= set(names)
    assert names == sorted(names)


def test_register_makes_a_name_known(monkeypatch):
    monkeypatch.setattr(registry, "_factories", dict(registry._factories))

    class Mine(environments.Catch):
        pass

    environments.register("mine:Catch", Mine)
    environments.register(
        "mine:Gym", lambda seed, index: GymEnvironment("CartPole-v1", seed, index)
    )
    asked = {}
    environments.register("mine:Any", lambda **settings: asked.update(settings) or Mine())
    assert environments.make("mine:Catch", seed=4) == Mine()
    assert environments.make("mine:Gym").max_episode_steps == 500
    expected = dict(seed=4, index=2, render=True, max_episode_steps=9)
    assert environments.make("mine:Any", **expected) == Mine()
    assert asked == expected
    environments.register("mine:Bare", lambda: gymnasium.make("CartPole-v1"))
    assert isinstance(environments.make("mine:Bare"), GymEnvironment)
    assert "mine:Gym" in environments.available()
    with pytest.raises(SettingError, match="unknown name 'mine:Gymn'; did you mean 'mine:Gym'"):
        environments.make("mine:Gymn")


@pytest.mark.parametrize("name", ["Robot", "gym:Robot", "gymnax:Robot", ":Robot", "mine:"])
def test_register_needs_a_prefix_of_your_own(name):
    with pytest.raises(SettingError, match=rf"must be 'prefix:Name' .*, got '{name}'; try 'mine:"):
        environments.register(name, environments.Catch)


def test_spec_is_the_same_for_both_kinds():
    env = environments.Catch()
    assert environments.spec(env) == environments.spec(environments.to_dm_env(env))


def test_spec_of_any_dm_env_environment():
    class Bare(dm_env.Environment):
        reset = step = None

        def observation_spec(self):
            return "observations"

        def action_spec(self):
            return "actions"

    spec = environments.spec(Bare())
    assert spec[:2] == ("observations", "actions")
    assert spec.max_episode_steps is None


def test_import_does_not_import_gymnasium():
    code = "import sys, rlws.environments; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
