"""The DeepMind Control Suite as ours; where it is not installed, a suite that only pretends."""

import functools
import importlib.util
import math
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, TimeStep, specs, test_utils

from agents_zoo import ppo, sac
from rlws import environments, networks
from rlws.commands import catalogue
from rlws.environments import registry, resolve
from rlws.numerics import trees
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.trainer import Snapshot

ADAPTER = "rlws.environments.dm_control_adapter"
HUGE = 1e10  # MuJoCo's word for infinity


class Physics:
    """Draws nothing; notes whether it was freed."""

    freed = False

    def render(self, height, width, camera_id):
        if height == 0:
            raise RuntimeError("No OpenGL\nrendering backend.")
        return np.zeros((height, width, 3), np.uint8)[::-1]

    def free(self):
        self.freed = True


class Task:
    """Observations are drawn when an episode begins; an action of 5 ends it with this discount."""

    def __init__(self, random):
        self.random = np.random.RandomState(random)


class Fake:
    """What the suite's environments are made of, as far as the adapter looks at them."""

    def __init__(self, limit=3.0, discount=0.0, bounds=((-1.0, 0.5), (1.0, 1.1)), random=None):
        self.task, self.physics, self._step_limit = Task(random), Physics(), limit
        self._discount, self._bounds, self.actions = discount, bounds, []

    def reset(self):
        self.actions.clear()
        self._start = self.task.random.uniform(size=2)
        return TimeStep(StepType.FIRST, None, None, self._observation())

    def step(self, action):
        self.actions.append(action)
        late = len(self.actions) >= self._step_limit
        over = late or action[0] == 5
        discount = self._discount if over and not late else 1.0
        kind = StepType.LAST if over else StepType.MID
        return TimeStep(kind, np.float64(0.1), discount, self._observation())

    def _observation(self):
        return {"velocity": self._start * len(self.actions), "height": np.float64(self._start[0])}

    def observation_spec(self):
        return {"velocity": specs.Array((2,), float), "height": specs.Array((), float)}

    def action_spec(self):
        low, high = self._bounds
        return specs.BoundedArray((2,), float, low, high)

    def control_timestep(self):
        return 0.02


@pytest.fixture
def adapter(monkeypatch):
    """The adapter of a pretended suite, with "ball_in_cup-catch" and "lqr-lqr_2_1" in it."""
    tasks = (("ball_in_cup", "catch"), ("lqr", "lqr_2_1"))
    load = lambda domain, task, task_kwargs: Fake(**task_kwargs)
    suite = types.SimpleNamespace(ALL_TASKS=tasks, load=load)
    monkeypatch.setitem(sys.modules, "dm_control", types.SimpleNamespace(suite=suite))
    monkeypatch.setitem(sys.modules, "mujoco", types.SimpleNamespace(mjMAXVAL=HUGE))
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    yield importlib.import_module(ADAPTER)
    sys.modules.pop(ADAPTER)


ZERO = np.zeros(2, np.float32)
END = np.float32([5, 0])


@pytest.mark.parametrize(
    ("discount", "action", "steps", "expected"),
    [(0.0, END, 1, 0.0), (0.7, END, 2, 0.7), (0.0, ZERO, 3, 1.0)],
    ids=["terminated", "discounted", "truncated"],
)
def test_step_discount_is_the_suites(adapter, discount, action, steps, expected):
    env = adapter.DmControlEnvironment(Fake(discount=discount))
    env.reset()
    timesteps = [env.step(ZERO) for _ in range(steps - 1)]
    end = env.step(action)
    assert [t[:3] for t in timesteps] == [(StepType.MID, 0.1, 1.0)] * (steps - 1)
    assert end[:3] == (StepType.LAST, 0.1, expected)
    assert type(end.reward) is float
    assert env.step(action)[:3] == (StepType.FIRST, None, None)


def test_values_are_float32_and_conform(adapter):
    env = adapter.DmControlEnvironment(Fake())
    assert env.observation_spec() == {
        "velocity": specs.Array((2,), np.float32),
        "height": specs.Array((), np.float32),
    }
    for timestep in (env.reset(), env.step(ZERO)):
        assert jax.tree.structure(timestep.observation) == jax.tree.structure(
            env.observation_spec()
        )
        jax.tree.map(lambda s, x: s.validate(x), env.observation_spec(), timestep.observation)


def test_actions_are_bounded_where_actuators_are(adapter):
    bounds = lambda low, high: adapter.DmControlEnvironment(Fake(bounds=(low, high))).action_spec()
    both = bounds((-1.0, 0.5), (1.0, 1.1))
    assert both == specs.BoundedArray((2,), np.float32, [-1, 0.5], [1, 1.1])
    one = bounds((-1.0, -HUGE), (1.0, HUGE))
    assert one == specs.BoundedArray((2,), np.float32, [-1, -np.inf], [1, np.inf])
    assert type(bounds((-HUGE, -HUGE), (HUGE, HUGE))) is specs.Array


def test_reset_depends_on_seed_index_and_episode_alone(adapter):
    def starts(seed, index, steps=0):
        env, found = adapter.DmControlEnvironment(Fake(), seed, index), []
        for _ in range(3):
            found.append(env.reset().observation["velocity" if steps else "height"])
            for _ in range(steps):
                env.step(ZERO)
        return found

    table = {(seed, index): starts(seed, index) for seed in (0, 1) for index in (0, 1)}
    assert len({float(x) for row in table.values() for x in row}) == 12
    assert starts(0, 1) == table[0, 1]
    np.testing.assert_array_equal(starts(0, 1, 2), starts(0, 1, 1))
    env = adapter.DmControlEnvironment(Fake(), 0, 1)
    env.episode = 2
    assert env.reset().observation["height"] == table[0, 1][2]
    assert env.episode == 3


@pytest.mark.parametrize(
    ("limit", "replaced", "expected"),
    [(3.0, None, 3), (2.9999, None, 3), (math.inf, None, None), (3.0, 5, 5), (math.inf, 2, 2)],
)
def test_max_episode_steps_is_where_episodes_end(adapter, limit, replaced, expected):
    env = adapter.DmControlEnvironment(Fake(limit), max_episode_steps=replaced)
    assert environments.spec(env).max_episode_steps == expected
    env.reset()
    ends = [env.step(ZERO).last() for _ in range(expected or 50)]
    assert ends == [False] * (len(ends) - 1) + [expected is not None]


def test_max_episode_steps_must_be_positive(adapter):
    with pytest.raises(SettingError, match="max_episode_steps must be at least 1, got 0; None"):
        adapter.DmControlEnvironment(Fake(), max_episode_steps=0)


def test_render_returns_a_picture_that_can_be_written(adapter):
    env = adapter.DmControlEnvironment(Fake())
    assert env.render().shape == (480, 640, 3)
    assert env.render().flags.c_contiguous
    assert env.frames_per_second == 50
    env.close()
    assert env._env.physics.freed


def test_render_without_opengl_says_what_to_set(adapter):
    env = adapter.DmControlEnvironment(fake := Fake())
    fake.physics.render = lambda *_, **__: Physics.render(fake.physics, 0, 0, 0)
    with pytest.raises(
        SettingError, match=r"needs OpenGL.*\(No OpenGL rendering.*MUJOCO_GL to egl"
    ):
        env.render()


def test_names_are_a_domain_and_a_task(adapter):
    assert adapter.names() == ["dm:ball_in_cup-catch", "dm:lqr-lqr_2_1"]
    assert {*adapter.names()} <= {*environments.available()}
    # What a task draws when it is made is the same in all runs.
    made = [environments.make("dm:lqr-lqr_2_1", seed=seed)._env.task.random for seed in (1, 2)]
    assert made[0].uniform() == made[1].uniform()
    with pytest.raises(SettingError, match="'dm:cup-catch'; did you mean 'dm:ball_in_cup-catch'"):
        environments.make("dm:cup-catch")


def test_name_is_not_of_a_jax_environment(adapter, monkeypatch):
    monkeypatch.setattr(resolve, "make", lambda *_: pytest.fail("slow, and need not be made"))
    assert not resolve.is_jax("dm:ball_in_cup-catch")
    assert not resolve.is_jax("dm:nosuch")


def test_device_trainer_refuses(adapter):
    with pytest.raises(SettingError, match=r"needs an environment written in JAX, got 'dm:ball"):
        DeviceTrainer().check("dm:ball_in_cup-catch")


def test_mujoco_that_is_too_new_says_what_to_install(adapter, monkeypatch):
    def load(*_, **__):
        raise AttributeError("'MjModel' object has no attribute 'flex_vertedge'")

    monkeypatch.setattr(adapter._suite, "load", load)
    monkeypatch.setattr(adapter.importlib.metadata, "version", lambda name: f"version-of-{name}")
    with pytest.raises(SettingError) as error:
        environments.make("dm:lqr-lqr_2_1")
    assert "dm_control version-of-dm_control does not work with mujoco version" in str(error.value)
    assert "pip install 'rlws[dm_control]' ('MjModel'" in str(error.value)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    monkeypatch.delitem(sys.modules, ADAPTER, raising=False)
    with pytest.raises(SettingError, match=r"'dm:cartpole-swingup' needs .*'rlws\[dm_control\]'"):
        environments.make("dm:cartpole-swingup")
    assert not any(name.startswith("dm:") for name in environments.available())


def test_register_keeps_the_prefix(adapter):
    with pytest.raises(SettingError, match="with a prefix of your own, got 'dm:Robot'"):
        registry.register("dm:Robot", Fake)


@pytest.fixture
def make():
    """`environments.make` for the suite itself; what it makes is closed after the test."""
    pytest.importorskip("dm_control")
    made = []

    def make(name="dm:cartpole-swingup", **settings):
        made.append(environments.make(name, **settings))
        return made[-1]

    yield make
    for env in made:
        env.close()


# With targets that move, a body with contacts, and a model that is drawn.
NAMES = ("dm:cartpole-swingup", "dm:reacher-easy", "dm:finger-turn_easy", "dm:lqr-lqr_2_1")


def play(env, actions):
    """Returns all that an episode says, as bytes."""
    timesteps = [env.reset(), *map(env.step, actions)]
    return b"".join(np.asarray(x).tobytes() for t in timesteps for x in jax.tree.leaves(t))


@pytest.mark.parametrize("name", [*NAMES, pytest.param("dm:dog-fetch", marks=pytest.mark.slow)])
def test_episodes_repeat_bit_for_bit_wherever_they_begin(make, name):
    first, second, other = (make(name, seed=5, index=i) for i in (2, 2, 1))
    shape = (60, *first.action_spec().shape)
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    play(first, actions[:17])  # what went before leaves no trace
    second.episode = other.episode = 1
    expected = play(first, actions)
    assert play(second, actions) == expected
    assert play(other, actions) != expected


@pytest.mark.skipif(not importlib.util.find_spec("dm_control"), reason="needs dm_control")
class SuiteTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.make("dm:cartpole-balance", max_episode_steps=15)

    def make_action_sequence(self):
        return (self.make_action() for _ in range(40))  # to the end of an episode and past it


def test_suite_cuts_episodes_at_its_time_limit(make):
    env = make("dm:point_mass-easy")
    assert env.max_episode_steps == 1000
    assert env.frames_per_second == 50
    env.reset()
    *timesteps, last = [env.step(ZERO) for _ in range(1000)]
    assert not any(t.last() for t in timesteps)
    assert last.last()
    assert last.discount == 1.0
    assert make("dm:lqr-lqr_2_1").max_episode_steps is None


SAC = sac.Config(networks.MLP((8,)), random_steps=5, min_size=20, capacity=60, batch_size=4)
PPO = ppo.Config(networks.MLP((8,)), unroll_length=16, epochs=2, minibatches=2)


@pytest.mark.parametrize(
    "agent", [PPO, pytest.param(SAC, marks=pytest.mark.slow)], ids=["ppo", "sac"]
)
def test_agents_learn_and_resume_exactly(make, agent):
    source = lambda seed, index: make(seed=seed, index=index, max_episode_steps=30)
    train = functools.partial(HostTrainer(num_envs=2).train, agent, source, steps=160)
    *_, whole = train(report_period=100)
    assert whole.updates > 0
    reports = train(report_period=100)
    arrays, facts = next(reports).snapshot()
    reports.close()  # in the middle of an episode
    snapshot = Snapshot(trees.flatten(jax.tree.map(np.array, arrays)), facts)
    *_, resumed = train(report_period=100, resume=snapshot)
    for x, y in zip(*map(jax.tree.leaves, (whole.params, resumed.params)), strict=True):
        np.testing.assert_array_equal(x, y)


PICTURE = """
import sys
from rlws import environments
from rlws.settings import SettingError
env = environments.make("dm:cartpole-swingup")
env.reset()
try:
    print(len(set(env.render().ravel().tolist())))
except SettingError as error:
    print(error)
env.close()
"""


def draw(**environment):
    """Returns what a process of its own, as OpenGL is chosen once, says about a picture."""
    environment = {**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": "", **environment}
    command = [sys.executable, "-c", PICTURE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_suite_draws_or_says_what_to_set(make):
    said = draw()
    if not said.isdigit():
        assert said.startswith("a picture needs OpenGL, which does not work here (MUJOCO_GL=egl: ")
        pytest.skip(said)
    assert int(said) > 50  # shades


@pytest.mark.parametrize("value", ["nosuch", "disabled"])
def test_suite_can_be_played_where_nothing_draws(make, value):
    said = draw(MUJOCO_GL=value)
    assert said.startswith("a picture needs OpenGL, which does not work here (")
    assert "\n" not in said


def test_list_describes_the_suites_tasks(make):
    assert "Cartpole Swing-Up" in catalogue.environments()["dm:cartpole-swingup"]
