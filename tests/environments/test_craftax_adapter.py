"""Craftax as ours: its rules of ends in a world without any other, and, slowly, the true one."""

import functools
import subprocess
import sys

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, test_utils

from rlws import environments
from rlws.environments.checks import check_device
from rlws.numerics import memo
from rlws.settings import SettingError

craftax_adapter = pytest.importorskip("rlws.environments.craftax_adapter")
craftax_adapter._made("Classic-Symbolic-v1")  # which imports
from craftax.craftax_classic.constants import BlockType  # noqa: E402
from craftax.craftax_classic.envs import craftax_symbolic_env as classic  # noqa: E402

NAME = "craftax:Classic-Symbolic-v1"
LIMIT = 5
NOTHING, DIE, LAVA = 0, 1, 2  # actions of the world without rules


@functools.cache
def empty():
    """Returns a world of nothing but lava in a corner, in which the player is well."""
    env, params = craftax_adapter._made("Classic-Symbolic-v1")
    shapes = jax.eval_shape(env.reset_env, np.zeros(2, np.uint32), params)[1]
    with jax.ensure_compile_time_eval():
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        lava = state.map.at[0, 0].set(BlockType.LAVA.value)
        return state.replace(map=lava, player_position=jnp.array([5, 5]), player_health=9)


def act(key, state, action, params, static_params):
    """Does as the action says, for a reward that is drawn."""
    health = jnp.where(action == DIE, 0, state.player_health)
    position = jnp.where(action == LAVA, 0, state.player_position)
    after = dict(timestep=state.timestep + 1, state_rng=key)
    state = state.replace(player_health=health, player_position=position, **after)
    return state, jax.random.uniform(key)


def begin(key, params, static_params):
    return empty().replace(light_level=jax.random.uniform(key))


def observe(state):
    return jnp.zeros(1345).at[0].set(state.light_level)


@pytest.fixture
def _world(monkeypatch):
    """The true world takes a minute to compile; its `is_game_over` stays."""
    memo.forget()
    empty()  # of the true one's shapes
    monkeypatch.setattr(classic, "craftax_step", act)
    monkeypatch.setattr(classic, "generate_world", begin)
    monkeypatch.setattr(classic, "render_craftax_symbolic", observe)
    yield
    memo.forget()


world = pytest.mark.usefixtures("_world")


def roll_both(env, key, actions):
    """Returns the FIRST timestep, those of actions, and what Craftax says of the same."""
    inner_env, params = craftax_adapter._made(env.name)
    params = params.replace(max_timesteps=env.spec().max_episode_steps)
    state, first = env.reset(key)

    def body(state, action):
        key = craftax_adapter._step_key(state)
        theirs = inner_env.step_env(key, state.inner, action, params)
        after, timestep = env.step(state, action)
        return after, (timestep, theirs[0], theirs[2], theirs[3])

    state, rows = jax.lax.scan(body, state, actions)
    return state, first, *rows


@world
@pytest.mark.parametrize(
    ("actions", "ends"),
    [
        (6 * [NOTHING], [None, None, None, None, 1.0, 1.0]),
        ([NOTHING, DIE, NOTHING], [None, 0.0, 0.0]),
        ([NOTHING, LAVA], [None, 0.0]),
        ([NOTHING, NOTHING, NOTHING, NOTHING, DIE], [None, None, None, None, 0.0]),
    ],
    ids=["limit", "death", "lava", "death at the limit"],
)
def test_discount_says_why_an_episode_ends(actions, ends):
    env = environments.make(NAME, max_episode_steps=LIMIT)
    roll = functools.partial(jax.jit(roll_both, static_argnums=0), env)
    state, _, rest, _, _, done = roll(jax.random.key(0), np.int32(actions))
    kinds = [StepType.MID if end is None else StepType.LAST for end in ends]
    np.testing.assert_array_equal(rest.step_type, kinds)
    np.testing.assert_array_equal(rest.discount, [1.0 if end is None else end for end in ends])
    np.testing.assert_array_equal(done, rest.step_type == StepType.LAST)  # as Craftax has it
    assert state.inner.timestep == len(actions)  # nothing restarts


@world
def test_steps_draw_anew_and_states_keep_their_types():
    env = environments.make(NAME)
    check_device(env)
    actions = np.zeros(20, np.int32)
    roll = jax.jit(jax.vmap(lambda key: roll_both(env, key, actions)))
    state, first, rest, _, reward, _ = roll(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_array_equal(rest.reward, reward)
    assert len(np.unique(rest.reward)) == 80
    assert len(np.unique(first.observation[:, 0])) == 4
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, rest)))


@world
class CraftaxTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make(NAME, max_episode_steps=LIMIT))

    def make_action_sequence(self):
        return (self.make_action() for _ in range(2 * LIMIT))


def play(seed, index):
    """Returns rewards and observations of some episodes, in an environment of its own."""
    env = environments.make(NAME, max_episode_steps=LIMIT)
    env = environments.to_dm_env(env, seed, index)
    rows = [env.step(np.int32(NOTHING)) for _ in range(2 * LIMIT + 4)]
    return np.array([(row.reward or 0, row.observation[0]) for row in rows])


@world
def test_same_seed_plays_the_same_episodes():
    np.testing.assert_array_equal(play(3, 1), play(3, 1))
    starts = np.concatenate([play(*which)[:: LIMIT + 1] for which in ((3, 1), (3, 0), (2, 1))])
    assert len(np.unique(starts[:, 1])) == 9


@pytest.mark.parametrize(
    ("name", "size", "high", "actions", "limit"),
    [
        ("Classic-Symbolic-v1", 1345, 1, 17, 10_000),
        ("Symbolic-v1", 8268, np.inf, 43, 100_000),
    ],
)
def test_spec_is_craftaxs(name, size, high, actions, limit):
    env = environments.make(f"craftax:{name}")
    spec = env.spec()
    assert (spec.observations.shape, spec.observations.dtype) == ((size,), np.float32)
    assert (spec.observations.minimum, spec.observations.maximum) == (0, high)
    assert (spec.actions.num_values, spec.actions.dtype) == (actions, np.int32)
    params = craftax_adapter._made(name)[1]
    assert spec.max_episode_steps == params.max_timesteps == limit
    assert environments.make(f"craftax:{name}", max_episode_steps=7).spec().max_episode_steps == 7


def test_equal_environments_are_one():
    first, second = (environments.make(NAME) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != environments.make(NAME, max_episode_steps=3)
    assert first != environments.make("craftax:Symbolic-v1")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("craftax:Craftax-Symbolic-v1", "did you mean 'craftax:Symbolic-v1'?"),
        ("craftax:Craftax-Classic-Symbolic-v1", "did you mean 'craftax:Classic-Symbolic-v1'?"),
        ("craftax:Classic-Symbolik-v1", "did you mean 'craftax:Classic-Symbolic-v1'?"),
        ("craftax:Symbolic", "did you mean 'craftax:Symbolic-v1'?"),
    ],
)
def test_unknown_name_says_what_was_meant(name, remedy):
    with pytest.raises(SettingError) as error:
        environments.make(name)
    assert str(error.value) == f"environment: unknown name {name!r}; {remedy}"


def test_time_limit_is_a_checked_setting():
    with pytest.raises(SettingError, match=r"max_episode_steps must be at least 1, got 0"):
        environments.make(NAME, max_episode_steps=0)


def test_available_lists_craftax():
    assert {*craftax_adapter.names()} <= {*environments.available()}


def test_missing_craftax_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "craftax", None)
    monkeypatch.delitem(sys.modules, "rlws.environments.craftax_adapter")
    with pytest.raises(SettingError) as error:
        environments.make(NAME)
    message = f"environment {NAME!r} needs a package that is missing: pip install 'rlws[craftax]'"
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


INSIDE = """
import jax
from rlws import environments
make = lambda: environments.make("craftax:Classic-Symbolic-v1")
jax.eval_shape(lambda key: make().reset(key), jax.random.key(0))
jax.eval_shape(lambda key: make().reset(key), jax.random.key(0))
"""


@pytest.mark.slow
def test_environments_can_be_made_inside_a_trace():
    # Constants of Craftax's modules, imported there, must not be tracers.
    command = [sys.executable, "-c", INSIDE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@functools.cache
def played():
    """Returns episodes of the true world, of random actions, and what Craftax says of the same."""
    env = environments.make(NAME, max_episode_steps=250)

    @jax.jit
    @jax.vmap
    def roll(key):
        return roll_both(env, key, jax.random.randint(key, (250,), 0, 17))

    return env, jax.device_get(roll(jax.random.split(jax.random.key(0), 8)))


@pytest.mark.slow
def test_episodes_are_craftaxs():
    env, (state, first, rest, observation, reward, done) = played()
    np.testing.assert_array_equal(rest.observation, observation)
    np.testing.assert_array_equal(rest.reward, reward)
    np.testing.assert_array_equal(rest.step_type == StepType.LAST, done)
    dead = rest.discount == 0
    assert dead.any(), "nobody has died"
    assert (rest.discount[:, -1] == 1).any(), "nobody has lived"
    assert (rest.step_type[:, -1] == StepType.LAST).all()
    assert (dead[:, :-1] == (rest.step_type[:, :-1] == StepType.LAST)).all()
    assert [x.dtype for x in rest] == ["int32", "float32", "float32", "float32"]
    spec = env.spec().observations
    for timestep in (first, rest):
        assert timestep.observation.shape[-1:] == spec.shape
        assert (spec.minimum <= timestep.observation).all()
        assert (timestep.observation <= spec.maximum).all()
    assert len(np.unique(first.observation, axis=0)) == 8
    assert isinstance(rest, dm_env.TimeStep)
    np.testing.assert_array_equal(state.inner.timestep, np.full(8, 250))


@pytest.mark.slow
def test_render_draws_what_the_player_sees():
    env, (state, *_) = played()
    pictures = [env.render(jax.tree.map(lambda x, i=i: x[i], state)) for i in range(2)]
    assert pictures[0].shape == (144, 144, 3)
    assert pictures[0].dtype == np.uint8
    assert len(np.unique(pictures[0])) > 10
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Symbolic-v1", "Classic-Pixels-v1"])
def test_what_is_traced_is_as_the_spec_says(name):
    check_device(environments.make(f"craftax:{name}"))
