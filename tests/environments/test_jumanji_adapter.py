"""jumanji's environments against jumanji's own timesteps, and as ours."""

import functools
import math
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
from rlws.networks import masks
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer

jumanji = pytest.importorskip("jumanji")
from rlws.environments.jumanji_adapter import JumanjiEnvironment, State, names  # noqa: E402

NAMES = [name.removeprefix("jumanji:") for name in names()]
QUICK = "Snake-v1"
ALL = [QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != QUICK)]
LIMITS = {
    "Maze-v0": 100,
    "PacMan-v1": 1000,
    "RubiksCube-partly-scrambled-v0": 20,
    "RubiksCube-v0": 200,
    "SlidingTilePuzzle-v0": 500,
    "Snake-v1": 4000,
    "Tetris-v0": 400,
}
LIMITED = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LIMITS]

pytestmark = [
    # Of jumanji's BinPack.
    pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types:FutureWarning"),
]


@pytest.fixture(autouse=True)
def _ranks():
    with jax.numpy_rank_promotion("allow"):  # jumanji's own code relies on it
        yield


def play(env, key, steps, legal):
    """Returns the FIRST timestep, and states, actions and timesteps; nothing restarts."""
    reset_key, act_key = jax.random.split(key)
    count, (state, first) = env.spec().actions.num_values, env.reset(reset_key)

    def body(carry, key):
        state, observation = carry
        action = networks.random_action(observation, count, key)
        if not legal:
            action = jax.random.randint(key, (), 0, count)
        after, timestep = env.step(state, action)
        return (after, timestep.observation), (state, action, timestep)

    keys = jax.random.split(act_key, steps)
    return first, *jax.lax.scan(body, (state, first.observation), keys)[1]


@functools.cache
def played(env, legal=True, count=8, steps=40):
    keys = jax.random.split(jax.random.key(0), count)
    return jax.device_get(jax.jit(jax.vmap(lambda key: play(env, key, steps, legal)))(keys))


def by_name(observation):
    """Returns the leaves of jumanji's or of our observations, by the names that lead to them."""
    leaves = jax.tree.leaves_with_path(observation)
    part = lambda key: key.name if hasattr(key, "name") else key.key
    return {"/".join(map(part, path)): leaf for path, leaf in leaves}


def until_the_end(timestep):
    """Returns the steps [B, T] of the first episode; jumanji says nothing of those after it."""
    ended = np.cumsum(timestep.step_type == StepType.LAST, axis=1)
    return (ended == 0) | ((ended == 1) & (timestep.step_type == StepType.LAST))


@pytest.mark.parametrize("name", ALL)
def test_steps_are_jumanjis_and_so_are_its_discounts(name):
    env, theirs = JumanjiEnvironment(name), jumanji.make(name)
    _, states, actions, rest = played(env)
    counts = np.atleast_1d(np.asarray(theirs.action_spec.num_values))
    if theirs.action_spec.shape:
        actions = np.stack(np.unravel_index(actions, counts), -1).astype(np.int32)
    step = jax.jit(jax.vmap(jax.vmap(theirs.step)))
    _, expected = jax.device_get(step(states.inner, actions))
    assert env.spec().actions.num_values == math.prod(counts)
    # Compiled otherwise, a quotient may be another in its last bit.
    np.testing.assert_allclose(rest.reward, expected.reward, rtol=3e-7)
    np.testing.assert_array_equal(rest.discount, expected.discount)
    np.testing.assert_array_equal(rest.step_type, expected.step_type)
    entries = by_name(expected.observation)
    if masks.KEY in entries:
        entries[masks.KEY] = entries[masks.KEY].reshape(*rest.reward.shape, -1)
    assert by_name(rest.observation).keys() == entries.keys()
    for entry, x in by_name(rest.observation).items():
        np.testing.assert_allclose(x, entries[entry], rtol=3e-7, err_msg=entry)
    # Nothing but its time limit could be a truncation, and it calls that a termination, too.
    np.testing.assert_array_equal(rest.discount == 0, rest.step_type == StepType.LAST)


@pytest.mark.parametrize("legal", [True, False], ids=["legal", "random"])
@pytest.mark.parametrize("name", ALL)
def test_numbers_are_as_the_spec_says(name, legal):
    env = JumanjiEnvironment(name)
    first, _, _, rest = played(env, legal)
    spec = env.spec()
    masks.check(spec)
    assert rules.unlike(spec.observations, rest.observation, axes=2) is None
    assert rules.unlike(spec.observations, first.observation, axes=1) is None
    within = until_the_end(rest)
    for rule in rules.of_timesteps(spec, rest):
        assert not rule.broken[within].any(), rule.name
    leaves = zip(jax.tree.leaves(spec.observations), jax.tree.leaves(rest.observation), strict=True)
    for leaf, x in leaves:
        assert (x[within] >= getattr(leaf, "minimum", -np.inf)).all(), leaf.name
        assert (x[within] <= getattr(leaf, "maximum", np.inf)).all(), leaf.name


@pytest.mark.parametrize("name", ALL)
def test_no_state_is_weakly_typed(name):
    env = JumanjiEnvironment(name)
    state, first = jax.eval_shape(env.reset, jax.random.key(0))
    after = jax.eval_shape(env.step, state, jax.ShapeDtypeStruct((), np.int32))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, after)))


def near_the_limit(env, limit):
    """Returns the timesteps that a legal step into the limit leads to, and the one before."""
    state, first = env.reset(jax.random.key(1))
    step = jax.jit(env.step)
    action = networks.random_action(
        first.observation, env.spec().actions.num_values, jax.random.key(0)
    )
    set_ = getattr(state.inner, "replace", getattr(state.inner, "_replace", None))
    at = lambda time: State(set_(step_count=jnp.int32(time)), jnp.int32(time))
    return step(at(limit - 1), action)[1], step(at(limit - 2), action)[1]


@pytest.mark.parametrize("name", LIMITED)
def test_own_limit_terminates_and_ours_in_its_place_truncates(name):
    limit = LIMITS[name]
    own = JumanjiEnvironment(name)
    assert own.spec().max_episode_steps == limit
    last, middle = near_the_limit(own, limit)
    assert (middle.step_type, middle.discount) == (StepType.MID, 1)
    assert (last.step_type, last.discount) == (StepType.LAST, 0)
    # An agent can see it come, but for PacMan's, and for Tetris's, as it always says 0.
    seen = {"PacMan-v1": None, "Tetris-v0": 0}.get(name, limit)
    assert last.observation.get("step_count") == seen
    if seen:
        assert getattr(own.spec().observations["step_count"], "maximum", limit) == limit
    for given in (limit, 2 * limit):
        env = environments.make(f"jumanji:{name}", max_episode_steps=given)
        assert env.spec().max_episode_steps == given
        last, middle = near_the_limit(env, given)
        assert (middle.step_type, middle.discount) == (StepType.MID, 1)
        assert (last.step_type, last.discount) == (StepType.LAST, 1)


@pytest.mark.slow
def test_those_listed_are_all_that_have_limits():
    limits = {name: JumanjiEnvironment(name).spec().max_episode_steps for name in NAMES}
    assert {name: limit for name, limit in limits.items() if limit} == LIMITS


def test_limit_truncates_where_jumanji_has_none():
    env = environments.make("jumanji:Knapsack-v1", max_episode_steps=3)
    *_, rest = played(env, count=4, steps=4)
    np.testing.assert_array_equal(rest.step_type[:, 1:3], 4 * [[StepType.MID, StepType.LAST]])
    np.testing.assert_array_equal(rest.discount, 1)


def test_end_at_the_limit_is_a_termination():
    env = environments.make("jumanji:TSP-v1", max_episode_steps=2)
    state, _ = env.reset(jax.random.key(0))
    state, middle = env.step(state, np.int32(5))
    assert middle.step_type == StepType.MID
    for city, discount in ((5, 0), (6, 1)):  # none may be visited twice
        _, last = env.step(state, np.int32(city))
        assert (last.step_type, last.discount) == (StepType.LAST, discount)


def test_actions_of_several_numbers_are_counted_as_masks_are():
    env = JumanjiEnvironment("Minesweeper-v0")
    state, first = env.reset(jax.random.key(0))
    assert env.spec().actions.num_values == 100
    assert first.observation["action_mask"].all()
    _, timestep = env.step(state, np.int32(37))
    assert np.argwhere(timestep.observation["board"] >= 0).tolist() == [[3, 7]]
    assert np.flatnonzero(~timestep.observation["action_mask"]).tolist() == [37]


def test_observe_keeps_entries_beside_the_mask():
    env = JumanjiEnvironment("Snake-v1", observe=("grid",))
    assert set(env.spec().observations) == {"action_mask", "grid"}
    state, first = jax.eval_shape(env.reset, jax.random.key(0))
    assert set(first.observation) == {"action_mask", "grid"}
    assert set(jax.eval_shape(env.step, state, 0)[1].observation) == {"action_mask", "grid"}
    with pytest.raises(SettingError, match=r"Snake-v1: observe: unknown value 'gird'; .*'grid'"):
        JumanjiEnvironment("Snake-v1", observe=("gird",))


def test_episodes_repeat_bit_for_bit():
    def episode(seed, index, number):
        env = environments.to_dm_env(environments.make("jumanji:Game2048-v1"), seed, index)
        env.episode = number
        rows = [env.reset()]
        for _ in range(30):
            rows.append(env.step(np.int32(rows[-1].observation["action_mask"].argmax())))
        return np.array([row.observation["board"] for row in rows])

    np.testing.assert_array_equal(episode(1, 2, 3), episode(1, 2, 3))
    assert (episode(1, 2, 3) != episode(1, 2, 4)).any()


class SnakeTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make("jumanji:Snake-v1", max_episode_steps=15))

    def make_action_sequence(self):
        return (self.make_action() for _ in range(40))  # to the end of an episode and past it


class MinesweeperTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.to_dm_env(environments.make("jumanji:Minesweeper-v0"))


def test_equal_environments_are_one():
    one, other = (environments.make("jumanji:Snake-v1") for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != JumanjiEnvironment("Snake-v1", observe=("grid",))


def test_environments_can_be_made_inside_a_trace():
    # jumanji's environment, which is kept, must not hold tracers of the first program that asked.
    @jax.jit
    def start(key):
        env = JumanjiEnvironment("Snake-v1", max_episode_steps=77)
        return env.step(env.reset(key)[0], 0)[1]

    first, env = start(jax.random.key(0)), JumanjiEnvironment("Snake-v1", max_episode_steps=77)
    second = env.step(env.reset(jax.random.key(0))[0], 0)[1]
    np.testing.assert_array_equal(first.observation["grid"], second.observation["grid"])


@pytest.mark.parametrize("name", ALL)
def test_render_draws_the_state(name):
    env = environments.to_dm_env(JumanjiEnvironment(name))
    timestep = env.reset()
    before = env.render()
    env.step(np.int32(timestep.observation.get("action_mask", np.ones(1)).argmax()))
    after = env.render()
    assert before.shape == (480, 480, 3)
    assert before.dtype == np.uint8
    assert (before != after).any()


@pytest.mark.slow
def test_names_are_those_of_all_environments_for_one_agent():
    def alone(name):
        env = jumanji.make(name)
        mask = getattr(env.observation_spec, "action_mask", None)
        if not hasattr(env.action_spec, "num_values"):
            return False
        counts = tuple(np.atleast_1d(np.asarray(env.action_spec.num_values)).tolist())
        return env.reward_spec.shape == () and (mask is None or mask.shape == counts)

    registered = jumanji.registered_environments() - {"Sokoban-v0"}
    assert sorted(filter(alone, registered)) == NAMES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Snak-v1", "unknown name 'jumanji:Snak-v1'; did you mean 'jumanji:Snake-v1'?"),
        ("Snake", "unknown name 'jumanji:Snake'; did you mean 'jumanji:Snake-v1'?"),
        ("xyzzy", "unknown name 'jumanji:xyzzy'; jumanji.registered_environments() says"),
        ("Cleaner-v0", "got 'jumanji:Cleaner-v0', which moves several agents at once; rlws"),
        ("JobShop-v0", "got 'jumanji:JobShop-v0', which has an action mask for each of its ten"),
        ("Sokoban-v0", "got 'jumanji:Sokoban-v0', which downloads its levels when it is made"),
    ],
)
def test_unknown_name_says_what_was_meant(name, message):
    with pytest.raises(SettingError) as error:
        environments.make(f"jumanji:{name}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_time_limit_is_a_checked_setting():
    with pytest.raises(SettingError, match=r"max_episode_steps must be at least 1, got 0"):
        environments.make("jumanji:Snake-v1", max_episode_steps=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "backbone"),
    [
        (JumanjiEnvironment("Game2048-v1"), networks.MLP()),
        (JumanjiEnvironment("Snake-v1", observe=("grid",)), networks.CNN()),
    ],
    ids=["Game2048", "Snake"],
)
def test_agents_learn(env, backbone):
    agent = ppo.Config(backbone, unroll_length=8, epochs=1, minibatches=1)
    *_, report = DeviceTrainer(num_envs=4).train(agent, env, steps=128)
    assert report.updates > 0


def test_missing_jumanji_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jumanji", None)
    monkeypatch.delitem(sys.modules, "rlws.environments.jumanji_adapter")
    with pytest.raises(SettingError) as error:
        environments.make("jumanji:Snake-v1")
    message = "environment 'jumanji:Snake-v1' needs a package that is missing: pip install 'rlws"
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_import_does_not_import_jumanji():
    code = "import sys, rlws.environments; sys.exit('jumanji' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
