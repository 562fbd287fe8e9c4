"""gymnax's environments against gymnasium's, and as ours."""

import subprocess
import sys

import dm_env
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType

from rlws import environments
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.settings import SettingError

gymnax = pytest.importorskip("gymnax")
from rlws.environments.gymnax_adapter import GymnaxEnvironment, State  # noqa: E402

# The fields of gymnax's state, in gymnasium's order, and the bounds of those in which an episode
# can go on.
STATES = {
    "CartPole-v1": (("x", "x_dot", "theta", "theta_dot"), [2.4, 3, 0.2, 3]),
    "Acrobot-v1": (
        ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
        [np.pi, np.pi, 4 * np.pi, 9 * np.pi],
    ),
    "MountainCar-v0": (("position", "velocity"), [[-1.2, 0.5], 0.07]),
    "MountainCarContinuous-v0": (("position", "velocity"), [[-1.2, 0.45], 0.07]),
    "Pendulum-v1": (("theta", "theta_dot"), [4 * np.pi, 8]),
}
# By energy pumping and balancing, episodes that end, in success where there is such a thing.
POLICIES = {
    "CartPole-v1": lambda state: int(np.array([0.1, 0.3, 3.0, 1.0]) @ state > 0),
    "Acrobot-v1": lambda state: 2 if state[3] > 0 else 0,
    "MountainCar-v0": lambda state: 2 if state[1] > 0 else 0,
    "MountainCarContinuous-v0": lambda state: np.float32([1 if state[1] > 0 else -1]),
    "Pendulum-v1": lambda state: np.float32([2 * np.sign(state[1])]),
}


def step_gymnax(name, states, actions, times):
    """Returns the timesteps after states [T, ...] of gymnasium, each at its time."""
    env = environments.make(f"gymnax:{name}")
    fields = dict(zip(STATES[name][0], np.float32(states).T, strict=True))
    inner = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), len(states)))[0].inner
    times = np.asarray(times, np.int32)
    inner = inner.replace(**fields, time=times)
    state = State(inner, np.zeros((len(states), 2), np.uint32), times)
    return jax.device_get(jax.jit(jax.vmap(env.step))(state, np.asarray(actions)))[1]


def record(name, episodes):
    """Plays gymnasium: odd episodes by policy, even ones at random; returns what happened."""
    env, rows = gymnasium.make(name), []
    env.action_space.seed(0)
    for episode in range(episodes):
        env.reset(seed=episode)
        time, done = 0, False
        while not done:
            state = np.array(env.unwrapped.state)
            random = env.action_space.sample()
            action = POLICIES[name](state) if episode % 2 else random
            rows.append((state, action, time, *env.step(action)[:4]))
            time, done = time + 1, any(rows[-1][-2:])
    return map(np.array, zip(*rows, strict=True))


@pytest.mark.parametrize("name", STATES)
def test_step_follows_gymnasium_through_episodes(name):
    # Each step from gymnasium's own state: in open loop, float32 rounding would grow.
    states, actions, times, observations, rewards, terminated, truncated = record(name, 4)
    timesteps = step_gymnax(name, states, actions, times)
    np.testing.assert_allclose(timesteps.observation, observations, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(timesteps.reward, rewards, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(timesteps.discount, 1 - terminated)
    kinds = np.where(terminated | truncated, StepType.LAST, StepType.MID)
    np.testing.assert_array_equal(timesteps.step_type, kinds)
    assert truncated.any()
    assert terminated.any() or name == "Pendulum-v1"


def step_anywhere(name, count=3000):
    """Steps both from states all over the state space; returns what gymnasium and gymnax said."""
    rng, env = np.random.default_rng(0), gymnasium.make(name, disable_env_checker=True).unwrapped
    env.action_space.seed(0)
    env.reset()
    bounds = [b if isinstance(b, list) else [-b, b] for b in STATES[name][1]]
    states = np.float32(np.stack([rng.uniform(*b, count) for b in bounds], -1))
    actions = [env.action_space.sample() for _ in states]
    rows = []
    for state, action in zip(states, actions, strict=True):
        env.state = np.float64(state)
        if name == "CartPole-v1":
            env.steps_beyond_terminated = None
        rows.append(env.step(action)[:3])
    timesteps = step_gymnax(name, states, actions, np.zeros(count))
    return list(map(np.array, zip(*rows, strict=True))), timesteps


def assert_agree(name, theirs, timesteps, which):
    observations, rewards, terminated = (x[which] for x in theirs)
    # At its highest speeds, a step of Acrobot magnifies rounding a thousand times.
    atol = 5e-3 if name == "Acrobot-v1" else 1e-5
    np.testing.assert_allclose(timesteps.observation[which], observations, rtol=1e-5, atol=atol)
    np.testing.assert_allclose(timesteps.reward[which], rewards, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(timesteps.discount[which], 1 - terminated)
    assert terminated.any() or name == "Pendulum-v1"


@pytest.mark.parametrize("name", sorted(set(STATES) - {"MountainCarContinuous-v0"}))
def test_step_follows_gymnasium_from_any_state(name):
    assert_agree(name, *step_anywhere(name), slice(None))


def test_mountain_car_continuous_differs_at_its_left_wall_alone():
    # There gymnasium's car stops, and gymnax's keeps its speed, and so stays there for some steps.
    name = "MountainCarContinuous-v0"
    theirs, timesteps = step_anywhere(name)
    wall = theirs[0][:, 0] == np.float32(-1.2)
    assert 20 < wall.sum() < 1000
    assert_agree(name, theirs, timesteps, ~wall)
    np.testing.assert_array_equal(timesteps.observation[wall, 0], np.float32(-1.2))
    assert (theirs[0][wall, 1] == 0).all()
    assert (timesteps.observation[wall, 1] < 0).all()


@pytest.mark.parametrize("name", STATES)
def test_spec_and_beginnings_are_gymnasiums(name):
    ours, gym = environments.make(f"gymnax:{name}"), GymEnvironment(name)
    ours_spec, gym_spec = environments.spec(ours), environments.spec(gym)
    assert ours_spec.observations == gym_spec.observations
    assert ours_spec.actions == gym_spec.actions
    assert ours_spec.max_episode_steps == gym_spec.max_episode_steps
    keys = jax.random.split(jax.random.key(0), 2000)
    starts = np.asarray(jax.vmap(ours.reset)(keys)[1].observation)
    theirs = np.array([gym.reset().observation for _ in range(2000)])
    quantiles = np.linspace(0, 1, 11)
    difference = np.quantile(starts, quantiles, 0) - np.quantile(theirs, quantiles, 0)
    assert (np.abs(difference) < 0.1 * np.ptp(theirs, 0) + 1e-6).all()


def roll(env, key, steps):
    """Returns the FIRST timestep and those of random actions; nothing restarts."""
    reset_key, act_key = jax.random.split(key)
    state, first = env.reset(reset_key)
    actions = env.spec().actions

    def body(state, key):
        if np.issubdtype(actions.dtype, np.integer):
            action = jax.random.randint(key, (), 0, actions.num_values)
        else:
            low, high = actions.minimum, actions.maximum
            action = jax.random.uniform(key, actions.shape, minval=low, maxval=high)
        return env.step(state, action)

    state, rest = jax.lax.scan(body, state, jax.random.split(act_key, steps))
    return state, first, rest


# Of every kind of observation, action, reward and limit that there is.
NAMES = (
    *("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "Catch-bsuite", "DeepSea-bsuite"),
    *("UmbrellaChain-bsuite", "FourRooms-misc", "BernoulliBandit-misc", "FrozenLake-misc"),
)
OTHERS = sorted(set(gymnax.registered_envs) - {*NAMES, "MNISTBandit-bsuite"})  # that downloads


@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_rollouts_scan_and_conform(name):
    env = environments.make(f"gymnax:{name}", max_episode_steps=3)
    spec = env.spec()
    assert spec.max_episode_steps == 3
    with jax.numpy_rank_promotion("allow"):  # gymnax's own code relies on it
        keys = jax.random.split(jax.random.key(0), 5)
        state, first, rest = jax.jit(jax.vmap(lambda key: roll(env, key, 4)))(keys)
    np.testing.assert_array_equal(first.step_type, 5 * [StepType.FIRST])
    np.testing.assert_array_equal(first.reward, np.zeros(5))
    np.testing.assert_array_equal(first.discount, np.ones(5))
    np.testing.assert_array_equal(state.time, np.full(5, 4))  # nothing restarts
    np.testing.assert_array_equal(rest.step_type[:, 2], 5 * [StepType.LAST])
    early = rest.step_type[:, :2] == StepType.LAST
    np.testing.assert_array_equal(rest.discount[:, :2] == 0, early)
    assert rest.observation.shape == (5, 4, *spec.observations.shape)
    dtypes = [leaf.dtype for leaf in rest]
    assert dtypes == [jnp.int32, jnp.float32, jnp.float32, spec.observations.dtype]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, first, rest)))


def test_last_row_has_the_true_observation():
    # gymnax's own `step` returns the observation of the next episode.
    env = environments.make("gymnax:CartPole-v1", max_episode_steps=2)
    state, _ = env.reset(jax.random.key(0))
    state, middle = env.step(state, 1)
    state, last = env.step(state, 1)
    assert (middle.step_type, last.step_type) == (StepType.MID, StepType.LAST)
    assert last.discount == 1
    expected = middle.observation[0] + 0.02 * middle.observation[1]
    np.testing.assert_allclose(last.observation[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(last.observation[1], state.inner.x_dot)
    assert last.observation[1] > 0.3  # pushed twice


def test_stochastic_steps_draw_anew():
    env = environments.make("gymnax:GaussianBandit-misc")
    states, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4))
    # The same bandit four times, in episodes with keys of their own.
    same = jax.tree.map(lambda x: jnp.stack([x[0]] * 4), states.inner)
    states = states._replace(inner=same)

    def play(state):
        return jax.lax.scan(lambda state, _: env.step(state, 1), state, length=20)[1].reward

    rewards = np.asarray(jax.vmap(play)(states))
    assert len(np.unique(rewards)) == 80
    np.testing.assert_array_equal(jax.vmap(play)(states), rewards)


def test_equal_environments_are_one():
    first, second = (environments.make("gymnax:Acrobot-v1") for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != environments.make("gymnax:Acrobot-v1", max_episode_steps=3)
    assert first != environments.make("gymnax:CartPole-v1")
    traces = []
    step = jax.jit(lambda env, *args: traces.append(env) or env.step(*args), static_argnums=0)
    state, _ = first.reset(jax.random.key(0))
    for env in (first, second):
        for _ in range(3):
            state, timestep = step(env, state, np.int32(0))
    assert traces == [first]
    assert isinstance(timestep, dm_env.TimeStep)


def test_environments_can_be_made_inside_a_trace():
    # Their parameters, which are kept, must not be tracers of the first program that asked.
    @jax.jit
    def start(key):
        env = GymnaxEnvironment("Acrobot-v1", max_episode_steps=77)
        return env.step(env.reset(key)[0], 0)[1]

    first = start(jax.random.key(0))
    env = GymnaxEnvironment("Acrobot-v1", max_episode_steps=77)
    second = env.step(env.reset(jax.random.key(0))[0], 0)[1]
    np.testing.assert_allclose(first.observation, second.observation, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gymnax:CartPoll-v1", "did you mean 'gymnax:CartPole-v1'?"),
        ("gymnax:Pendulum", "did you mean 'gymnax:Pendulum-v1'?"),
        ("gymnax:", "rlws.environments.available() lists the names"),
        ("gymnax:xyzzy", "gymnax.registered_envs lists what gymnax has"),
    ],
)
def test_unknown_name_says_what_was_meant(name, remedy):
    with pytest.raises(SettingError) as error:
        environments.make(name)
    assert str(error.value) == f"environment: unknown name {name!r}; {remedy}"


def test_time_limit_is_a_checked_setting():
    with pytest.raises(SettingError, match=r"max_episode_steps must be at least 1, got 0"):
        environments.make("gymnax:CartPole-v1", max_episode_steps=0)


def test_available_lists_gymnax():
    assert "gymnax:Breakout-MinAtar" in environments.available()


def test_missing_gymnax_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    monkeypatch.delitem(sys.modules, "rlws.environments.gymnax_adapter")
    with pytest.raises(SettingError) as error:
        environments.make("gymnax:CartPole-v1")
    message = "environment 'gymnax:CartPole-v1' needs a package that is missing: pip install 'rlws"
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    names = environments.available()
    assert "gym:CartPole-v1" in names
    assert not any(name.startswith("gymnax:") for name in names)


def test_import_does_not_import_gymnax():
    code = "import sys, rlws.environments; sys.exit('gymnax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
