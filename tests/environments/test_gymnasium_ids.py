"""What gymnasium lists can be made, or says what it takes; MuJoCo's among it."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import specs, test_utils

import rlws
from rlws import environments
from rlws.environments import gymnasium_ids
from rlws.environments.actions import legal
from rlws.environments.checks import check_first, check_timestep
from rlws.settings import SettingError

HAS_MUJOCO = importlib.util.find_spec("mujoco") is not None
needs_mujoco = pytest.mark.skipif(not HAS_MUJOCO, reason="needs mujoco")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    """How MuJoCo draws is kept from other tests, and what it logs from where they are run."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", gymnasium_ids.names())
def test_what_is_listed_is_made_or_says_what_it_takes(name):
    try:
        env = environments.make(name)
    except SettingError as error:
        said = str(error)
        assert "\n" not in said
        takes = ("pip install 'rlws[", "pip install 'gymnasium[jax]'", "only supported on")
        assert any(what in said for what in takes), said
        return
    spec = environments.spec(env)
    check_first(spec, env.reset(), name)
    for _ in range(3):
        check_timestep(spec, env.step(legal(spec.actions)), name)
    env.close()


@pytest.mark.parametrize("version", [2, 3])
def test_what_has_moved_is_not_there(version):
    name = f"gym:HalfCheetah-v{version}"
    assert name not in environments.available()
    with pytest.raises(SettingError, match=f"'{name}'; did you mean 'gym:HalfCheetah-v5'"):
        environments.make(name)
    assert "gym:GymV21Environment-v0" not in environments.available()


def without(monkeypatch, package, folder):
    """Forgets a package, and what gymnasium has imported of its environments that need it."""
    for module in [name for name in sys.modules if name.startswith(f"gymnasium.envs.{folder}")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [
        ("mujoco/HalfCheetah-v5", "mujoco", "rlws[mujoco]"),
        pytest.param("mujoco/HalfCheetah-v5", "imageio", "rlws[mujoco]", marks=needs_mujoco),
        ("box2d/LunarLander-v3", "Box2D", "rlws[envs]"),
        ("phys2d/CartPole-v1", "flax", "gymnasium[jax]"),
        ("tabular/Blackjack-v0", "flax", "gymnasium[jax]"),
    ],
)
def test_missing_package_says_what_to_install(monkeypatch, name, package, remedy):
    folder, _, identity = name.partition("/")
    name = f"gym:{identity if remedy.startswith('rlws') else name}"
    without(monkeypatch, package, folder)
    with pytest.raises(SettingError) as error:
        environments.make(name)
    said = str(error.value)
    expected = f"environment '{name}' needs a package that is missing: pip install '{remedy}' ("
    assert said.startswith(expected)
    assert package.lower() in said.lower()
    assert "\n" not in said


def test_missing_package_of_others_is_told_by_what_gymnasium_says(monkeypatch):
    def needy(**_):
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed, run\npip")

    spec = gymnasium.envs.registration.EnvSpec("Needy-v0", needy)
    monkeypatch.setitem(gymnasium.registry, "Needy-v0", spec)
    with pytest.raises(SettingError, match=r"missing: pip install 'rlws\[mujoco\]' \(MuJoCo is"):
        environments.make("gym:Needy-v0")


@needs_mujoco
def test_what_no_package_mends_says_no_package():
    with pytest.raises(SettingError, match=r"'gym:Pusher-v4' cannot be made here: .*mujoco<3"):
        environments.make("gym:Pusher-v4")


@needs_mujoco
class HalfCheetahTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.make("gym:HalfCheetah-v5", max_episode_steps=15)

    def make_action_sequence(self):
        return (self.make_action() for _ in range(40))  # to the end of an episode and past it


@needs_mujoco
def test_mujoco_specs_are_honest():
    env = environments.make("gym:Hopper-v5")
    assert env.action_spec() == specs.BoundedArray((3,), np.float32, -1, 1)
    assert env.observation_spec() == specs.Array((11,), np.float64)
    assert env.max_episode_steps == 1000
    assert env.frames_per_second == 125
    env.observation_spec().validate(env.reset().observation)


def play(env, actions):
    """Returns all that an episode says, as bytes."""
    timesteps = [env.reset(), *map(env.step, actions)]
    return b"".join(np.asarray(x).tobytes() for t in timesteps for x in jax.tree.leaves(t))


# With contacts, with random bodies and goals, with a random start of a body that hangs.
@needs_mujoco
@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Pusher-v5", "InvertedDoublePendulum-v5"])
def test_mujoco_episodes_repeat_bit_for_bit(name):
    first, second, other = (environments.make(f"gym:{name}", seed=5, index=i) for i in (2, 2, 1))
    shape = (60, *first.action_spec().shape)
    actions = np.random.default_rng(0).uniform(-0.4, 0.4, shape).astype(np.float32)
    play(first, actions[:17])  # what went before leaves no trace
    first.episode = second.episode = other.episode = 1
    expected = play(first, actions)
    assert play(second, actions) == expected
    assert play(other, actions) != expected


@needs_mujoco
def test_mujoco_discount_is_zero_where_gymnasium_terminates_only():
    ours, theirs = environments.make("gym:Hopper-v5"), gymnasium.make("Hopper-v5")
    ours.reset()
    theirs.reset()
    inner = (ours._env.unwrapped, theirs.unwrapped)
    inner[1].set_state(inner[0].data.qpos, inner[0].data.qvel)
    action, terminated = np.ones(3, np.float32), False
    while not terminated:  # it falls
        timestep = ours.step(action)
        _, reward, terminated, truncated, _ = theirs.step(action)
        assert not truncated
        assert timestep.reward == pytest.approx(reward)
        assert timestep.last() == terminated
        assert timestep.discount == 1.0 - terminated
    cheetah = environments.make("gym:HalfCheetah-v5", max_episode_steps=20)  # it never falls
    cheetah.reset()
    *timesteps, last = [cheetah.step(np.zeros(6, np.float32)) for _ in range(20)]
    assert not any(t.last() for t in timesteps)
    assert last.last()
    assert last.discount == 1.0


PICTURES = """
import sys
import numpy as np
from rlws import environments
from rlws.settings import SettingError
env = environments.make("gym:HalfCheetah-v5", render=True)
env.reset()
try:
    before = env.render()
    for _ in range(10):
        env.step(np.ones(6, np.float32))
    after = env.render()
    print(*after.shape, after.dtype, after.flags.c_contiguous, (after != before).any())
except SettingError as error:
    print(error)
env.close()
"""


def draw(**environment):
    """Returns what a process of its own, as OpenGL is chosen once, says about pictures."""
    root = str(pathlib.Path(rlws.__file__).parents[1])
    screenless = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "PYTHONPATH": root}
    environment = {**os.environ, **screenless, **environment}
    command = [sys.executable, "-c", PICTURES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@needs_mujoco
@pytest.mark.slow
def test_mujoco_draws_or_says_what_to_set():
    said = draw()
    if said.startswith("a picture needs OpenGL, which does not work here (MUJOCO_GL=egl: "):
        pytest.skip(said)
    assert said == "480 480 3 uint8 True True"


@needs_mujoco
@pytest.mark.slow
@pytest.mark.parametrize("value", ["nosuch", "disabled"])
def test_mujoco_can_be_played_where_nothing_draws(value):
    assert draw(MUJOCO_GL=value).startswith("a picture needs OpenGL, which does not work here (")
