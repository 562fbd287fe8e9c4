"""pgx's games against pgx's own states, and as ours."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, test_utils

from agents_zoo import ppo
from rlws import environments, networks
from rlws.environments import rules
from rlws.numerics import streams
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer

pgx = pytest.importorskip("pgx")
from rlws.environments.pgx_adapter import PgxEnvironment, names  # noqa: E402

BREAKOUT, BOARD = "minatar-breakout", "2048"
MINATAR = [name for name in pgx.available_envs() if name.startswith("minatar-")]
OTHERS = [BOARD, *(name for name in MINATAR if name != BREAKOUT)]
GAMES = [BREAKOUT, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


def legal_action(spec, observation, key):
    return networks.random_action(observation, spec.actions.num_values, key)


def play(env, key, steps):
    """Returns the states, actions and timesteps of random legal actions; nothing restarts."""
    reset_key, act_key = jax.random.split(key)
    spec, (state, first) = env.spec(), env.reset(reset_key)

    def body(carry, key):
        state, observation = carry
        action = legal_action(spec, observation, key)
        after, timestep = env.step(state, action)
        return (after, timestep.observation), (state, action, timestep)

    carry = state, first.observation
    _, (states, actions, rest) = jax.lax.scan(body, carry, jax.random.split(act_key, steps))
    return first, states, actions, rest


@functools.cache
def played(env, count=8, steps=100):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(lambda key: play(env, key, steps)))(keys))


@pytest.mark.parametrize("name", GAMES)
def test_steps_are_pgxs_and_its_ends_are_terminations(name):
    env, theirs = PgxEnvironment(name), pgx.make(name)
    spec = env.spec()
    first, states, actions, rest = played(env)

    def step(state, action):
        return theirs.step(state.inner, action, streams.draw(state.key, 0, state.time))

    expected = jax.device_get(jax.jit(jax.vmap(jax.vmap(step)))(states, actions))
    board = rest.observation if name != BOARD else rest.observation["board"]
    np.testing.assert_array_equal(board, expected.observation)
    np.testing.assert_array_equal(rest.reward, expected.rewards[..., 0])
    np.testing.assert_array_equal(rest.discount, 1.0 - expected.terminated)
    ends = np.where(expected.terminated, StepType.LAST, StepType.MID)
    np.testing.assert_array_equal(rest.step_type, ends)
    assert expected.terminated.any() or name in ("minatar-freeway", BOARD)
    assert not expected.truncated.any()
    if name == BOARD:
        np.testing.assert_array_equal(rest.observation["action_mask"], expected.legal_action_mask)
        assert 0 < expected.legal_action_mask.mean() < 1
    assert (first.step_type == StepType.FIRST).all()
    # What the spec says of numbers is so, and no leaf would have a program compiled twice.
    assert rules.unlike(spec.observations, rest.observation, axes=2) is None
    assert not any(rule.broken.any() for rule in rules.of_timesteps(spec, rest))
    for x in jax.tree.leaves((first.observation, rest.observation)):
        assert x.min() >= 0
        assert x.max() <= 1
    assert [x.dtype for x in rest[:3]] == [jnp.int32, jnp.float32, jnp.float32]


@pytest.mark.parametrize("name", GAMES)
def test_no_state_is_weakly_typed(name):
    env = PgxEnvironment(name)
    state, first = jax.eval_shape(env.reset, jax.random.key(0))
    after = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((), np.int32))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, after)))


@pytest.mark.parametrize("name", [BREAKOUT, BOARD])
def test_limit_truncates(name):
    env = environments.make(f"pgx:{name}", max_episode_steps=3)
    assert env.spec().max_episode_steps == 3
    *_, rest = played(env, count=4, steps=4)
    np.testing.assert_array_equal(rest.step_type[:, :2], StepType.MID)
    np.testing.assert_array_equal(rest.step_type[:, 2], StepType.LAST)
    np.testing.assert_array_equal(rest.discount, 1)
    assert environments.make(f"pgx:{name}").spec().max_episode_steps is None


def test_end_at_the_limit_is_a_termination():
    # Left alone, the ball is lost, as it starts away from the paddle, at the same step always.
    def falls(limit=None):
        env = PgxEnvironment(BREAKOUT, max_episode_steps=limit)
        state, _ = env.reset(jax.random.key(0))
        step = lambda state, _: env.step(state, 0)
        return jax.lax.scan(step, state, length=50)[1]

    time = int(np.argmax(falls().step_type == StepType.LAST)) + 1
    assert 1 < time < 50
    assert falls(time).discount[time - 1] == 0
    assert falls(time - 1).step_type[time - 2] == StepType.LAST
    assert falls(time - 1).discount[time - 2] == 1


@pytest.mark.slow
def test_freeway_ends_by_termination_after_2501_steps():
    # MinAtar calls its time limit a terminal state; a limit one step earlier truncates.
    def play(limit):
        env = PgxEnvironment("minatar-freeway", max_episode_steps=limit)
        state, _ = env.reset(jax.random.key(0))
        return jax.lax.scan(lambda state, _: env.step(state, 1), state, length=2501)[1]

    whole, cut = (jax.jit(play, static_argnums=0)(limit) for limit in (None, 2500))
    assert np.flatnonzero(whole.step_type == StepType.LAST).tolist() == [2500]
    assert whole.discount[2500] == 0
    assert cut.step_type[2499] == StepType.LAST
    assert cut.discount[2499] == 1
    assert whole.reward.sum() > 0


def paddles(actions, **settings):
    """Returns where the paddle, which begins at 4, is after one action; of as many episodes."""
    env, actions = PgxEnvironment(BREAKOUT, **settings), np.asarray(actions, np.int32)
    keys = jax.random.split(jax.random.key(0), len(actions))
    step = lambda key, action: env.step(env.reset(key)[0], action)[1].observation
    return np.asarray(jax.jit(jax.vmap(step))(keys, actions))[:, 9, :, 0].argmax(-1)


def test_sticky_actions_are_as_likely_as_asked():
    right = np.full(2000, 2)
    assert (paddles(right, sticky=0.0) == 5).all()
    assert (paddles(right, sticky=1.0) == 4).all()  # the action before the first is none
    repeated = paddles(right) == 4
    assert 0.07 < repeated.mean() < 0.13
    np.testing.assert_array_equal(repeated, paddles(right, sticky=0.1) == 4)


def test_all_actions_are_minatars_six():
    assert PgxEnvironment(BREAKOUT).spec().actions.num_values == 3
    assert PgxEnvironment(BREAKOUT, all_actions=True).spec().actions.num_values == 6
    moves = paddles(range(6), sticky=0.0, all_actions=True) - 4
    assert moves.tolist() == [0, -1, 0, 1, 0, 0]  # none, left, up, right, down, fire


def test_illegal_move_of_2048_ends_the_game():
    env = PgxEnvironment(BOARD)
    *_, states, actions, rest = played(env)
    legal = states.inner.legal_action_mask
    assert np.take_along_axis(legal, actions[..., None], -1).all()
    assert rest.reward.min() >= 0
    assert rest.reward.max() >= 4
    episode, time = np.argwhere(~legal.all(-1))[0]
    state = jax.tree.map(lambda x: x[episode, time], states)
    _, last = env.step(state, np.int32(np.argmin(legal[episode, time])))
    assert (last.step_type, last.reward, last.discount) == (StepType.LAST, -1, 0)


def test_episodes_repeat_bit_for_bit():
    def episode(seed, index, number):
        env = environments.to_dm_env(environments.make("pgx:minatar-breakout"), seed, index)
        env.episode = number
        rows = [env.reset()]
        rng = np.random.default_rng(0)
        while not rows[-1].last():
            rows.append(env.step(np.int32(rng.integers(3))))
        return np.array([row.observation for row in rows])

    one, other = episode(1, 2, 3), episode(1, 2, 3)
    np.testing.assert_array_equal(one, other)
    assert len({episode(*place).tobytes() for place in [(1, 2, 3), (1, 2, 4), (0, 2, 3)]}) > 1


class BreakoutTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make("pgx:minatar-breakout"))

    def make_action_sequence(self):
        return (self.make_action() for _ in range(40))  # to the end of an episode and past it


class BoardTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make("pgx:2048", max_episode_steps=5))


def test_equal_environments_are_one():
    one, other = (environments.make("pgx:minatar-breakout") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != PgxEnvironment(BREAKOUT, sticky=0.0)


def test_environments_can_be_made_inside_a_trace():
    # pgx's game, which is kept, must not hold tracers of the first program that asked.
    @jax.jit
    def start(key):
        env = PgxEnvironment(BREAKOUT, sticky=0.123)
        return env.step(env.reset(key)[0], 0)[1]

    first, env = start(jax.random.key(0)), PgxEnvironment(BREAKOUT, sticky=0.123)
    second = env.step(env.reset(jax.random.key(0))[0], 0)[1]
    np.testing.assert_array_equal(first.observation, second.observation)


@pytest.mark.parametrize("name", [BREAKOUT, BOARD])
def test_render_draws_the_state(name):
    env = environments.to_dm_env(PgxEnvironment(name))
    timestep = env.reset()
    before = env.render()
    env.step(np.int32(0 if name != BOARD else timestep.observation["action_mask"].argmax()))
    assert before.shape == (160, 160, 3)
    assert before.dtype == np.uint8
    assert (before != env.render()).any()


@pytest.mark.slow
def test_names_are_those_of_all_games_for_one_player():
    alone = [name for name in pgx.available_envs() if pgx.make(name).num_players == 1]
    assert names() == [f"pgx:{name}" for name in alone]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minatar-brekout", "unknown name 'pgx:minatar-brekout'; did you mean 'pgx:minatar-break"),
        ("xyzzy", "unknown name 'pgx:xyzzy'; pgx.available_envs() lists what pgx has"),
        ("chess", "must be a game for one player, got 'pgx:chess', which takes more; pgx has"),
    ],
)
def test_unknown_name_says_what_was_meant(name, message):
    with pytest.raises(SettingError) as error:
        environments.make(f"pgx:{name}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_are_checked():
    with pytest.raises(SettingError, match=r"sticky must be at least 0 and at most 1, got 1\.5"):
        PgxEnvironment(BREAKOUT, sticky=1.5)
    with pytest.raises(SettingError, match=r"max_episode_steps must be at least 1, got 0"):
        environments.make("pgx:2048", max_episode_steps=0)
    for settings in ({"sticky": 0.1}, {"all_actions": True}):
        with pytest.raises(SettingError, match="they are settings of MinAtar's games"):
            PgxEnvironment(BOARD, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", [BREAKOUT, BOARD])
def test_agents_learn(name):
    # The convolutions see the image alone, or the board without the mask.
    agent = ppo.Config(networks.CNN(), unroll_length=8, epochs=1, minibatches=1)
    *_, report = DeviceTrainer(num_envs=4).train(agent, f"pgx:{name}", steps=128)
    assert report.updates > 0


def test_missing_pgx_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pgx", None)
    monkeypatch.delitem(sys.modules, "rlws.environments.pgx_adapter")
    with pytest.raises(SettingError) as error:
        environments.make("pgx:2048")
    message = "environment 'pgx:2048' needs a package that is missing: pip install 'rlws[pgx]'"
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_import_does_not_import_pgx():
    code = "import sys, rlws.environments; sys.exit('pgx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
