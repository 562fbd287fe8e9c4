"""Gymnasium environments and spaces as dm_env ones."""

import sys

import gymnasium
import jax
import numpy as np
import pytest
from dm_env import StepType, specs
from gymnasium import spaces

from rlws import environments
from rlws.environments import gymnasium_spaces
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.settings import SettingError


class Toy(gymnasium.Env):
    """Samples observations, records actions, ends on its second step."""

    def __init__(self, terminated=False, truncated=False, observations=None, actions=None):
        self.observation_space = observations or spaces.Box(0, 1, (2,))
        self.action_space = actions or spaces.Discrete(2)
        self.end, self.actions = (terminated, truncated), []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.actions.clear()
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.actions.append(action)
        end = self.end if len(self.actions) == 2 else (False, False)
        return self.observation_space.sample(), np.int64(3), *end, {}


@pytest.mark.parametrize(
    ("terminated", "truncated", "step_type", "discount"),
    [
        (False, False, StepType.MID, 1.0),
        (True, False, StepType.LAST, 0.0),
        (False, True, StepType.LAST, 1.0),
        (True, True, StepType.LAST, 0.0),
    ],
)
def test_step_discount_is_zero_at_termination_only(terminated, truncated, step_type, discount):
    env = GymEnvironment(Toy(terminated, truncated))
    env.reset()
    assert env.step(np.int32(0))[:3] == (StepType.MID, 3.0, 1.0)
    end = env.step(np.int32(0))
    assert end.step_type is step_type
    assert end[1:3] == (3.0, discount)
    assert type(end.reward) is float


DICT = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (2, 3, 1), np.uint8),
        "body": spaces.Tuple([spaces.Discrete(3, start=-1), spaces.Box(-np.inf, np.inf, (2,))]),
        "lamps": spaces.MultiBinary(4),
    }
)
SPACES = [
    (spaces.Discrete(4), specs.DiscreteArray(4, np.int32)),
    (spaces.Discrete(3, start=5), specs.DiscreteArray(3, np.int32)),
    (spaces.Box(-1, 2, (3,), np.float64), specs.BoundedArray((3,), np.float64, -1, 2)),
    (spaces.Box(-np.inf, np.inf, (2,)), specs.Array((2,), np.float32)),
    (spaces.Box(0, np.inf, (2,)), specs.BoundedArray((2,), np.float32, 0, np.inf)),
    (spaces.Box(0, 255, (4, 4, 3), np.uint8), specs.BoundedArray((4, 4, 3), np.uint8, 0, 255)),
    (
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        specs.BoundedArray((2,), np.int64, [1, 0], [2, 2]),
    ),
    (spaces.MultiBinary((2, 3)), specs.BoundedArray((2, 3), np.int8, 0, 1)),
    (
        DICT,
        {
            "camera": specs.BoundedArray((2, 3, 1), np.uint8, 0, 255),
            "body": (specs.DiscreteArray(3, np.int32), specs.Array((2,), np.float32)),
            "lamps": specs.BoundedArray((4,), np.int8, 0, 1),
        },
    ),
]


@pytest.mark.parametrize(("space", "expected"), SPACES, ids=lambda x: str(x)[:40])
def test_spaces_become_specs_that_their_values_conform_to(space, expected):
    env = GymEnvironment(Toy(observations=space, actions=space))
    spec = env.observation_spec()
    assert spec == expected  # specs compare by all but their names
    env.reset()
    for observation in (env.reset().observation, env.step(_action(env)).observation):
        jax.tree.map(lambda s, value: s.validate(value), spec, observation)


def _action(env):
    """Returns an action as agents give it: of JAX's 32-bit types."""
    narrow = {"int64": np.int32, "float64": np.float32}

    def generate(spec):
        value = np.zeros(spec.shape) if not isinstance(spec, specs.BoundedArray) else spec.minimum
        return np.broadcast_to(value, spec.shape).astype(narrow.get(spec.dtype.name, spec.dtype))[
            ()
        ]

    return jax.tree.map(generate, env.action_spec())


def test_discrete_spaces_count_from_zero():
    space = spaces.Discrete(3, start=5)
    toy = Toy(observations=space, actions=space)
    env = GymEnvironment(toy)
    env.reset()
    seen = {int(env.step(np.int32(i % 3)).observation) for i in range(30)}
    assert toy.actions == [5, 6, 7] * 10
    assert seen == {0, 1, 2}


def test_box_values_get_the_dtype_of_their_space():
    toy = Toy(actions=spaces.Box(-1, 1, (2,), np.float64))
    toy.step = lambda action: (np.ones(2), action.dtype == np.float64, False, False, {})
    env = GymEnvironment(toy)
    env.reset()
    timestep = env.step(np.ones(2, np.float32))
    assert timestep.reward == 1.0
    assert timestep.observation.dtype == np.float32


def test_discrete_actions_must_be_whole_numbers():
    env = GymEnvironment("CartPole-v1")
    env.reset()
    with pytest.raises(TypeError, match="integer"):
        env.step(np.float32(0.7))


@pytest.mark.parametrize(
    "space", [spaces.Text(5), spaces.Sequence(DICT), spaces.Dict(a=spaces.Dict(b=spaces.Text(5)))]
)
def test_unsupported_space_is_named(space):
    where = "observation/a/b" if isinstance(space, spaces.Dict) else "observation"
    with pytest.raises(SettingError, match=rf"^{where} space must be of arrays .* got (Text|Seq)"):
        gymnasium_spaces.to_spec(space, "observation")
    with pytest.raises(SettingError, match=r"^action.*; wrap the environment"):
        GymEnvironment(Toy(actions=space))


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SettingError) as error:
        environments.make("gym:LunarLander-v3")
    message = str(error.value)
    assert "'gym:LunarLander-v3' needs a package that is missing" in message
    assert "pip install 'rlws[envs]'" in message
    assert "Box2D is not installed" in message
    assert "\n" not in message


def test_missing_module_is_named():
    with pytest.raises(SettingError, match=r"'gym:no_module:Foo-v0' needs .* named 'no_module'"):
        environments.make("gym:no_module:Foo-v0")


def test_module_in_the_id_is_imported():
    environments.make("gym:gymnasium.envs:CartPole-v1").reset()


def test_render_needs_asking_for():
    env = GymEnvironment("CartPole-v1")
    env.reset()
    with pytest.raises(SettingError, match="must be 'rgb_array', got None; pass render=True"):
        env.render()


@pytest.mark.parametrize(
    ("id_or_env", "limit", "expected"),
    [("CartPole-v1", None, 500), ("CartPole-v1", 3, 3), (Toy(), None, None), (Toy(), 3, 3)],
)
def test_max_episode_steps_overrides_the_registered_limit(id_or_env, limit, expected):
    env = GymEnvironment(id_or_env, max_episode_steps=limit)
    assert env.max_episode_steps == expected
    env.reset()
    timesteps = [env.step(0) for _ in range(3)]
    assert [t.last() for t in timesteps] == [False, False, expected == 3]
    assert timesteps[-1].discount == 1.0


def test_max_episode_steps_must_be_positive():
    with pytest.raises(SettingError, match="max_episode_steps must be at least 1, got -1"):
        GymEnvironment("CartPole-v1", max_episode_steps=-1)
