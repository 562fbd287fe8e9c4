"""brax's environments against brax's own wrappers, and as ours."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, test_utils

from rlws import environments
from rlws.environments.checks import check_device
from rlws.settings import SettingError

pytest.importorskip("brax")
from rlws.environments import brax_adapter

NAME = "brax:inverted_pendulum"  # soon compiled, and soon fallen
LIMIT, STEPS, EPISODES = 12, 16, 8
# brax, of MuJoCo.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing .* directly from:DeprecationWarning")
NAMES = (
    *("ant", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_double_pendulum"),
    *("inverted_pendulum", "pusher", "reacher", "swimmer", "walker2d"),
)


@pytest.fixture(autouse=True)
def _ranks():
    with jax.numpy_rank_promotion("allow"):  # brax's own code relies on it
        yield


def roll(env, key, scale=1.0, steps=STEPS):
    """Returns the state after, the FIRST timestep, those of random actions, and these."""
    reset_key, act_key = jax.random.split(key)
    state, first = env.reset(reset_key)
    shape = steps, *env.spec().actions.shape
    actions = scale * jax.random.uniform(act_key, shape, minval=-1, maxval=1)
    state, rest = jax.lax.scan(env.step, state, actions)
    return state, first, rest, actions


def roll_brax(env, key, actions):
    """Returns the same of brax's environment within its wrapper of episodes."""
    state = env.reset(jax.random.split(key)[0])

    def body(state, action):
        after = env.step(state, action)
        return after, (after.obs, after.reward, after.done, after.info["truncation"])

    return state.obs, jax.lax.scan(body, state, actions)[1]


@functools.cache
def played():
    """Returns what both say of the same episodes, half of them pushed at random, half not."""
    ours = environments.make(NAME, max_episode_steps=LIMIT)
    with brax_adapter._quiet():
        create = brax_adapter._envs.create
        theirs = create(ours.name, episode_length=LIMIT, auto_reset=False, backend=ours.backend)

    @jax.jit
    @jax.vmap
    def both(key, scale):
        state, first, rest, actions = roll(ours, key, scale)
        return (state, first, rest), roll_brax(theirs, key, actions)

    keys = jax.random.split(jax.random.key(0), EPISODES)
    return both(keys, jnp.arange(EPISODES) % 2 * 1.0)


def test_episodes_are_those_of_braxs_own_wrapper():
    (_, first, rest), (begun, (observation, reward, done, truncation)) = played()
    np.testing.assert_array_equal(first.observation, begun)
    np.testing.assert_allclose(rest.observation, observation, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rest.reward, reward, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(rest.step_type == StepType.LAST, done == 1)
    np.testing.assert_array_equal(rest.discount == 0, (done == 1) & (truncation == 0))
    at_limit, early = rest.discount[:, LIMIT - 1], rest.discount[:, : LIMIT - 1]
    assert (at_limit == 1).any(), "no episode is cut by the limit alone"
    assert (at_limit == 0).any(), "no episode is over at the limit by itself"
    assert (early == 0).any(), "no episode ends before"


def test_discount_is_0_where_the_pole_has_fallen_and_only_there():
    _, _, rest = played()[0]
    fallen = np.abs(rest.observation[..., 1]) > 0.2  # as brax's inverted_pendulum has it
    np.testing.assert_array_equal(rest.discount, 1.0 - fallen)
    ended = fallen | (np.arange(STEPS) + 1 >= LIMIT)
    np.testing.assert_array_equal(rest.step_type, np.where(ended, StepType.LAST, StepType.MID))


def test_rollouts_conform():
    state, first, rest = played()[0]
    np.testing.assert_array_equal(first.step_type, EPISODES * [StepType.FIRST])
    np.testing.assert_array_equal(first.reward, np.zeros(EPISODES))
    np.testing.assert_array_equal(first.discount, np.ones(EPISODES))
    np.testing.assert_array_equal(state.time, np.full(EPISODES, STEPS))  # nothing restarts
    assert [x.dtype for x in rest] == ["int32", "float32", "float32", "float32"]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, rest)))
    assert len(np.unique(first.observation, axis=0)) == EPISODES


def test_states_given_are_left_alone():
    env = environments.make("brax:reacher")  # whose step writes into a dictionary of its state
    shapes, _ = jax.eval_shape(env.reset, jax.random.key(0))
    before = dict(shapes.inner.metrics)
    jax.eval_shape(lambda action: env.step(zeros(shapes), action), jnp.zeros(2))
    kept = zeros(shapes)
    values = dict(kept.inner.metrics)
    jax.eval_shape(lambda action: env.step(kept, action), jnp.zeros(2))
    assert kept.inner.metrics.keys() == before.keys()
    assert all(kept.inner.metrics[key] is values[key] for key in values)


def zeros(shapes):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


class BraxTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make(NAME, max_episode_steps=LIMIT))

    def make_action_sequence(self):
        return (self.make_action() for _ in range(2 * LIMIT))


def play(seed, index, episodes=2):
    """Returns all rows of some episodes, as another process would see them."""
    env = environments.make(NAME, max_episode_steps=LIMIT)
    env, rows = environments.to_dm_env(env, seed, index), []
    rng = np.random.default_rng(0)
    while env.episode <= episodes:
        rows.append(env.step(rng.uniform(-1, 1, 1).astype(np.float32)))
    return [np.array(leaf) for row in rows for leaf in (row.observation, row.reward, row.discount)]


def test_same_seed_plays_the_same_episodes():
    for ours, again in zip(play(3, 1), play(3, 1), strict=True):
        np.testing.assert_array_equal(ours, again)
    starts = [play(*which, episodes=0)[0] for which in ((3, 1), (3, 0), (2, 1))]
    assert len(np.unique(starts, axis=0)) == 3


@pytest.mark.parametrize(
    ("name", "shape", "actions", "rate"),
    [
        ("inverted_pendulum", 4, 1, 25),
        ("halfcheetah", 17, 6, 20),
        ("swimmer", 8, 2, 25),
        ("hopper", 11, 3, 125),
    ],
)
def test_spec_is_braxs(name, shape, actions, rate):
    env = environments.make(f"brax:{name}")
    spec = env.spec()
    assert spec.observations.shape == (shape,)
    assert spec.observations.dtype == np.float32
    assert (spec.actions.shape, spec.actions.dtype) == ((actions,), np.float32)
    assert (spec.actions.minimum, spec.actions.maximum) == (-1, 1)
    assert spec.max_episode_steps == 1000
    assert env.frames_per_second == rate
    assert rate == pytest.approx(1 / brax_adapter._made(name, "generalized").env.dt)


def test_equal_environments_are_one():
    first, second = (environments.make(NAME) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != environments.make(NAME, max_episode_steps=3)
    assert first != brax_adapter.BraxEnvironment("inverted_pendulum", backend="spring")


def test_environments_can_be_made_inside_a_trace():
    # What is kept must not be tracers of the first program that asked.
    brax_adapter._made.cache_clear()
    shapes = jax.eval_shape(lambda key: environments.make(NAME).reset(key)[1], jax.random.key(0))
    assert shapes.observation.shape == (4,)
    assert not any(
        isinstance(leaf, jax.core.Tracer)
        for leaf in jax.tree.leaves(brax_adapter._made("inverted_pendulum", "generalized").env.sys)
    )


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("brax:inverted_pendulun", "did you mean 'brax:inverted_pendulum'?"),
        ("brax:half_cheetah", "did you mean 'brax:halfcheetah'?"),
        ("brax:fast", "rlws.environments.available() lists the names"),
    ],
)
def test_unknown_name_says_what_was_meant(name, remedy):
    with pytest.raises(SettingError) as error:
        environments.make(name)
    assert str(error.value) == f"environment: unknown name {name!r}; {remedy}"


def test_settings_are_checked():
    with pytest.raises(SettingError, match=r"max_episode_steps must be at least 1, got 0"):
        environments.make(NAME, max_episode_steps=0)
    with pytest.raises(SettingError, match=r"backend must be .*, got 'bullet'"):
        brax_adapter.BraxEnvironment("ant", backend="bullet")
    with pytest.raises(SettingError, match=r"'brax:swimmer'.*backend='spring'.*try 'generalized'"):
        brax_adapter.BraxEnvironment("swimmer", backend="spring")


def test_available_lists_brax():
    assert {f"brax:{name}" for name in NAMES} <= {*environments.available()}
    assert brax_adapter.names() == [f"brax:{name}" for name in brax_adapter._known()]


def test_missing_brax_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    monkeypatch.delitem(sys.modules, "rlws.environments.brax_adapter")
    with pytest.raises(SettingError) as error:
        environments.make("brax:ant")
    message = "environment 'brax:ant' needs a package that is missing: pip install 'rlws[brax]'"
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


QUIET = """
from rlws import environments
environments.make("brax:halfcheetah")  # whose model MuJoCo complains of
"""


@pytest.mark.slow
def test_making_one_says_nothing(tmp_path):
    root = str(pathlib.Path(environments.__file__).parents[2])
    where = dict(cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    command = [sys.executable, "-c", QUIET]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **where)
    assert (done.stdout, done.stderr) == ("", "")
    assert not [*tmp_path.iterdir()]


def draw(env, state):
    try:
        return env.render(state)
    except SettingError as error:
        pytest.skip(str(error))


def test_render_draws_the_state():
    env = environments.make(NAME, max_episode_steps=LIMIT)
    states = jax.device_get(played()[0][0])
    pictures = [draw(env, jax.tree.map(lambda x, i=i: x[i], states)) for i in range(2)]
    assert pictures[0].shape == (480, 640, 3)
    assert pictures[0].dtype == np.uint8
    assert len(np.unique(pictures[0])) > 10
    assert (pictures[0] != pictures[1]).any()


def test_render_without_opengl_says_what_to_set(monkeypatch):
    env = environments.make(NAME)

    def fail(*_):
        raise RuntimeError("No OpenGL\nrendering backend.")

    monkeypatch.setattr(brax_adapter._made(env.name, env.backend).env, "render", fail)
    state = jax.tree.map(lambda x: x[0], played()[0][0])
    with pytest.raises(SettingError, match=r"needs OpenGL.*\(No OpenGL rendering.*MUJOCO_GL"):
        env.render(state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "generalized") for name in NAMES),
        *(("ant", backend) for backend in ("spring", "positional", "mjx")),
    ],
)
def test_rollouts_scan_and_conform(name, backend):
    env = brax_adapter.BraxEnvironment(name, backend=backend, max_episode_steps=3)
    check_device(env)
    spec = env.spec()
    program = jax.jit(jax.vmap(lambda key: roll(env, key, steps=4)))
    state, first, rest, _ = program(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_array_equal(state.time, np.full(3, 4))
    np.testing.assert_array_equal(rest.step_type[:, 2], 3 * [StepType.LAST])
    early = rest.step_type[:, :2] == StepType.LAST
    np.testing.assert_array_equal(rest.discount[:, :2] == 0, early)
    assert rest.observation.shape == (3, 4, *spec.observations.shape)
    assert [x.dtype for x in rest] == ["int32", "float32", "float32", "float32"]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, rest)))
    assert all(np.isfinite(leaf).all() for leaf in rest)
    # Actuators saturate at the bounds of an action, or nearly all of them would be too narrow.
    made = brax_adapter._made(name, backend).env
    assert made.action_size == spec.actions.shape[0]
