"""brax's environments against brax's own wrappers, and as ours."""

import functools
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, test_utils

from rlws import environments
from rlws.environments import jax_environment
from rlws.environments.checks import check_device
from rlws.settings import SettingError

# Not brax, which imports MuJoCo before the adapter can tell it how to draw.
brax_adapter = pytest.importorskip("rlws.environments.brax_adapter")

PENDULUM, TINY = "inverted_pendulum", "tiny"
LIMIT, STEPS, EPISODES = 12, 16, 8
NAMES = (
    *("ant", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_double_pendulum"),
    *(PENDULUM, "pusher", "reacher", "walker2d"),
)
# brax, of MuJoCo.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing .* directly from:DeprecationWarning")


class Tiny(brax_adapter._envs.Env):
    """What brax's environments are, but for physics, which take long to compile."""

    dt, action_size, observation_size, backend = jnp.float32(0.04), 1, 2, "generalized"

    def __init__(self, backend):
        if backend == "mjx":
            raise ValueError(f"Unsupported backend: {backend}.")  # as those of brax say it

    def reset(self, rng):
        x, zero = jax.random.uniform(rng, (2,), minval=-0.1, maxval=0.1), jnp.zeros(())
        return brax_adapter._envs.State(None, x, zero, zero, {"reward": zero})

    def step(self, state, action):
        x = state.obs.at[1].add(0.1 * action[0])
        state.metrics.update(reward=x[0])  # as they do, in the state that they are given
        done = (jnp.abs(x[1]) > 0.2) * 1.0  # weakly typed
        return state.replace(obs=x, reward=x[0], done=done)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(brax_adapter._envs._envs, TINY, Tiny)
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
        after = jax_environment.strong(env.step(state, action))
        return after, (after.obs, after.reward, after.done, after.info["truncation"])

    return state.obs, jax.lax.scan(body, state, actions)[1]


@functools.cache
def played(name):
    """Returns what both say of the same episodes, half of them pushed at random, half not."""
    ours = environments.make(f"brax:{name}", max_episode_steps=LIMIT)
    env = brax_adapter._made(name, ours.backend).env
    theirs = brax_adapter._envs.training.EpisodeWrapper(env, LIMIT, action_repeat=1)

    @jax.jit
    @jax.vmap
    def both(key, scale):
        state, first, rest, actions = roll(ours, key, scale)
        return (state, first, rest), roll_brax(theirs, key, actions)

    keys = jax.random.split(jax.random.key(0), EPISODES)
    return both(keys, jnp.arange(EPISODES) % 2 * 1.0)


BOTH = pytest.mark.parametrize("name", [TINY, pytest.param(PENDULUM, marks=pytest.mark.slow)])


@BOTH
def test_episodes_are_those_of_braxs_own_wrapper(name):
    (_, first, rest), (begun, (observation, reward, done, truncation)) = played(name)
    np.testing.assert_array_equal(first.observation, begun)
    np.testing.assert_allclose(rest.observation, observation, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rest.reward, reward, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(rest.step_type == StepType.LAST, done == 1)
    np.testing.assert_array_equal(rest.discount == 0, (done == 1) & (truncation == 0))
    at_limit, early = rest.discount[:, LIMIT - 1], rest.discount[:, : LIMIT - 1]
    assert (at_limit == 1).any(), "no episode is cut by the limit alone"
    assert (at_limit == 0).any(), "none has fallen where the limit is"
    assert (early == 0).any(), "no episode ends before"


@BOTH
def test_discount_is_0_where_the_pole_has_fallen_and_only_there(name):
    _, _, rest = played(name)[0]
    fallen = np.abs(rest.observation[..., 1]) > 0.2  # as brax's inverted_pendulum has it
    np.testing.assert_array_equal(rest.discount, 1.0 - fallen)
    ended = fallen | (np.arange(STEPS) + 1 >= LIMIT)
    np.testing.assert_array_equal(rest.step_type, np.where(ended, StepType.LAST, StepType.MID))


@BOTH
def test_rollouts_conform(name):
    state, first, rest = played(name)[0]
    np.testing.assert_array_equal(first.step_type, EPISODES * [StepType.FIRST])
    np.testing.assert_array_equal(first.reward, np.zeros(EPISODES))
    np.testing.assert_array_equal(first.discount, np.ones(EPISODES))
    np.testing.assert_array_equal(state.time, np.full(EPISODES, STEPS))  # nothing restarts
    assert [x.dtype for x in rest] == ["int32", "float32", "float32", "float32"]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, rest)))
    assert len(np.unique(first.observation, axis=0)) == EPISODES


def test_states_given_are_left_alone():
    env = environments.make(f"brax:{TINY}")
    state, _ = env.reset(jax.random.key(0))
    before = state.inner.metrics["reward"]
    after, timestep = env.step(state, jnp.ones(1))
    assert state.inner.metrics["reward"] is before
    assert after.inner.metrics["reward"] == timestep.reward != before
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((after, timestep)))
    check_device(env)


class BraxTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make(f"brax:{TINY}", max_episode_steps=LIMIT))

    def make_action_sequence(self):
        return (self.make_action() for _ in range(2 * LIMIT))


def play(seed, index, episodes=2):
    """Returns all rows of some episodes, as another process would see them."""
    env = environments.make(f"brax:{TINY}", max_episode_steps=LIMIT)
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
        (TINY, 2, 1, 25),
        (PENDULUM, 4, 1, 25),
        pytest.param("halfcheetah", 17, 6, 20, marks=pytest.mark.slow),
        pytest.param("ant", 27, 8, 20, marks=pytest.mark.slow),
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
    first, second = (environments.make(f"brax:{TINY}") for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != environments.make(f"brax:{TINY}", max_episode_steps=3)
    assert first != brax_adapter.BraxEnvironment(TINY, backend="spring")


def test_environments_can_be_made_inside_a_trace():
    # What is kept must not be tracers of the first program that asked.
    brax_adapter._made.cache_clear()
    make = lambda: environments.make(f"brax:{PENDULUM}")
    shapes = jax.eval_shape(lambda key: make().reset(key)[1], jax.random.key(0))
    assert shapes.observation.shape == (4,)
    kept = jax.tree.leaves(brax_adapter._made(PENDULUM, "generalized").env.sys)
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in kept)


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
        environments.make(f"brax:{TINY}", max_episode_steps=0)
    with pytest.raises(
        SettingError, match=r"backend: unknown value 'bullet'; one of: generalized,"
    ):
        brax_adapter.BraxEnvironment("ant", backend="bullet")
    with pytest.raises(SettingError, match=r"'brax:tiny'.*backend='mjx'.*try 'generalized'"):
        brax_adapter.BraxEnvironment(TINY, backend="mjx")


def test_swimmer_is_left_out_as_long_as_jax_does_not_run_it():
    with brax_adapter._quiet():
        env = brax_adapter._envs.get_environment("swimmer")
        state = jax.eval_shape(env.reset, jax.random.key(0))
        with pytest.raises(TypeError, match="a_min"):
            jax.eval_shape(env.step, state, jnp.zeros(2))
    assert "brax:swimmer" not in environments.available()


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


def still(name, q):
    """Returns a state, as far as it is drawn."""
    env = brax_adapter._made(name, "generalized").env
    inner = brax_adapter._envs.State(types.SimpleNamespace(q=q, qd=np.zeros_like(q)), *3 * [None])
    assert env.sys.init_q.shape == q.shape
    return brax_adapter.State(inner, np.int32(0))


def test_render_draws_the_state():
    env = environments.make(f"brax:{PENDULUM}")
    pictures = [draw(env, still(PENDULUM, np.float32([0, angle]))) for angle in (0, 1)]
    assert pictures[0].shape == (480, 640, 3)
    assert pictures[0].dtype == np.uint8
    assert len(np.unique(pictures[0])) > 10
    assert (pictures[0] != pictures[1]).any()


def test_render_without_opengl_says_what_to_set(monkeypatch):
    env = environments.make(f"brax:{PENDULUM}")

    def fail(*_):
        raise RuntimeError("No OpenGL\nrendering backend.")

    monkeypatch.setattr(brax_adapter._made(env.name, env.backend).env, "render", fail)
    with pytest.raises(SettingError, match=r"needs OpenGL.*\(No OpenGL rendering.*MUJOCO_GL"):
        env.render(still(PENDULUM, np.zeros(2, np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "spring") for name in NAMES),  # soonest compiled
        *(("ant", backend) for backend in ("generalized", "positional", "mjx")),
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
