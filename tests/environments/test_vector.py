"""Vector environments: every row, against environments whose rows are known."""

import subprocess
import sys

import cloudpickle
import gymnasium
import jax
import numpy as np
import pytest
from dm_env import StepType
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from rlws import environments
from rlws.environments.cartpole import State
from rlws.environments.checks import EnvironmentFault
from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.environments.vector import make_vector
from rlws.numerics import streams
from rlws.settings import SettingError

# So that processes get the classes of this module without importing it, and JAX with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LENGTHS = (3, 1, 1, 2)  # of episodes, and then again


class Counting(gymnasium.Env):
    """Shows (episode, t); even episodes terminate, odd ones are truncated, every fourth is both.

    Its first episode is its seed modulo 4. With `resets` 2, it takes two resets to get on.
    """

    observation_space = spaces.Box(0, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, resets=1):
        self.resets, self.count = resets, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count += 1
        if seed is not None:
            self.begin = seed % 4
        self.episode, self.t = self.begin + (self.count + self.resets - 1) // self.resets, 0
        return np.array([self.episode, 0.0]), {}

    def step(self, action):
        assert action in (5, 6, 7), action
        self.t += 1
        end = self.t == LENGTHS[self.episode % 4]
        terminated, truncated = end and self.episode % 2 == 0, end and self.episode % 4 != 2
        reward = 100 * self.episode + 10 * self.t + (action - 5)
        return np.array([self.episode, self.t]), reward, terminated, truncated, {}


def counted(begin, actions):
    """Yields the rows of one `Counting`: kind, reward, discount and observation."""
    episode, t, restart = begin, 0, False
    yield StepType.FIRST, 0, 1, (episode, 0)
    for action in actions:
        if restart:
            episode, t, restart = episode + 1, 0, False
            yield StepType.FIRST, 0, 1, (episode, 0)
            continue
        t += 1
        restart = t == LENGTHS[episode % 4]
        kind = StepType.LAST if restart else StepType.MID
        discount = 0 if restart and episode % 2 == 0 else 1
        yield kind, 100 * episode + 10 * t + action, discount, (episode, t)


@pytest.fixture
def counting():
    """A registered name."""
    native = lambda num_envs: SyncVectorEnv([Counting] * num_envs)
    gymnasium.register("Counting-v0", entry_point=Counting, vector_entry_point=native)
    yield "gym:Counting-v0"
    del gymnasium.registry["Counting-v0"]


@pytest.fixture
def make():
    """`make_vector`, of environments that are closed after the test."""
    made = []

    def make(*args):
        if "envpool" in args:
            pytest.importorskip("envpool")
        made.append(make_vector(*args))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def function(kind, mode):
    resets = 2 if mode is AutoresetMode.DISABLED else 1
    options = {"context": "spawn"} if kind is AsyncVectorEnv else {}

    def make_counting():
        return Counting(resets)

    return lambda seed, count: kind([make_counting] * count, autoreset_mode=mode, **options)


SAME_STEP = function(SyncVectorEnv, AutoresetMode.SAME_STEP)
MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)
SOURCES = {
    **{mode: (None, mode) for mode in ("sync", "async", "native")},
    **{f"sync {mode.value}": (function(SyncVectorEnv, mode), "async") for mode in MODES},
    "async Disabled": (function(AsyncVectorEnv, AutoresetMode.DISABLED), "sync"),
}


@pytest.mark.parametrize(("source", "vectorization"), SOURCES.values(), ids=SOURCES)
def test_every_row_is_known(make, counting, source, vectorization):
    num_envs, seed, steps = 3, 4, 30
    envs = make(source or counting, num_envs, seed, vectorization)
    actions = np.random.default_rng(0).integers(3, size=(steps, num_envs)).astype(np.int32)
    rows = [envs.reset(), *map(envs.step, actions)]
    begin = [streams.host_seed(seed, streams.Stream.ENVIRONMENT, i, 0) % 4 for i in range(num_envs)]
    assert len(set(begin)) > 1
    for i in range(num_envs):
        for row, expected in zip(rows, counted(begin[i], actions[:, i]), strict=True):
            kind, reward, discount, observation = expected
            assert (row.step_type[i], row.reward[i], row.discount[i]) == (kind, reward, discount)
            np.testing.assert_array_equal(row.observation[i], observation)
    for row in rows:
        assert {type(leaf) for leaf in row} == {np.ndarray}
        assert [leaf.shape for leaf in row] == [(3,)] * 3 + [(3, 2)]
        assert [leaf.dtype for leaf in row] == [np.int32, np.float32, np.float32, np.float64]


VECTORIZATIONS = ("sync", "async", "native", "envpool")


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
def test_rows_are_cartpoles(make, vectorization):
    # Environment 0 is balanced and so truncated, 1 and 2 fall.
    envs, gains = make("gym:CartPole-v1", 3, 0, vectorization), np.array([0.1, 0.3, 3.0, 1.0])
    random = np.random.default_rng(0).integers(2, size=(1100, 3)).astype(np.int32)
    rows, actions = [envs.reset()], random
    for action in actions:
        action[0] = gains @ rows[-1].observation[0] > 0
        rows.append(envs.step(action))
    kinds, rewards, discounts, observations = map(np.stack, zip(*rows, strict=True))
    first, last = kinds == StepType.FIRST, kinds == StepType.LAST
    assert first[0].all()
    np.testing.assert_array_equal(first[1:], last[:-1])
    starts = observations[first]
    assert np.abs(starts).max() <= 0.05
    assert len(np.unique(starts, axis=0)) == len(starts)  # every episode has its own
    np.testing.assert_array_equal(rewards, ~first)
    # Elsewhere, a step from the row before; `CartPole` itself is proven against gymnasium.
    time = np.zeros(kinds.shape, np.int32)
    for t in range(1, len(kinds)):
        time[t] = np.where(first[t], 0, time[t - 1] + 1)
    _, expected = jax.jit(jax.vmap(jax.vmap(environments.CartPole().step)))(
        State(observations[:-1], time[:-1]), actions
    )
    stepped = ~first[1:]
    for ours, theirs in zip((kinds, rewards, discounts), expected[:3], strict=True):
        np.testing.assert_array_equal(ours[1:][stepped], theirs[stepped])
    difference = np.abs(observations[1:] - expected.observation)[stepped]
    assert difference.max() < 1e-5
    assert last[:, 0].sum() == 2  # both by the time limit
    assert (time[:, 0].max(), discounts[:, 0].min()) == (500, 1)
    assert (discounts[:, 1:][last[:, 1:]] == 0).all()
    assert envs.spec.max_episode_steps == 500
    assert envs.spec.observations == environments.CartPole().spec().observations
    assert envs.spec.actions == environments.CartPole().spec().actions


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_first_episodes_are_those_of_serial_environments(make, vectorization):
    envs = make("gym:CartPole-v1", 3, 7, vectorization)
    serial = [GymEnvironment("CartPole-v1", 7, index) for index in range(3)]
    running, row, rows = {0, 1, 2}, envs.reset(), [env.reset() for env in serial]
    while running:
        for i in running:
            assert row.step_type[i] == rows[i].step_type
            np.testing.assert_array_equal(row.observation[i], rows[i].observation)
            if row.step_type[i] != StepType.FIRST:
                assert (row.reward[i], row.discount[i]) == (rows[i].reward, rows[i].discount)
        running = {i for i in running if row.step_type[i] != StepType.LAST}
        row, rows = envs.step(np.ones(3, np.int32)), [env.step(np.int32(1)) for env in serial]


class Mirror(gymnasium.Env):
    """Shows the last action, of a nested space; samples the first."""

    observation_space = action_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (2, 3), np.uint8),
            "body": spaces.Tuple(
                [spaces.Discrete(3, start=-1), spaces.Box(-1, 1, (2,), np.float64)]
            ),
            "lamps": spaces.MultiBinary(4),
            "rooms": spaces.MultiDiscrete([2, 3], start=[1, 0]),
        }
    )

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return action, 0.0, False, False, {}


def test_nested_spaces_are_batched(make):
    envs = make(lambda seed, count: SyncVectorEnv([Mirror] * count), 3)
    serial = [GymEnvironment(Mirror(), 0, i) for i in range(3)]
    assert envs.spec[:2] == (serial[0].observation_spec(), serial[0].action_spec())
    starts = [env.reset().observation for env in serial]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    for row in (envs.reset(), envs.step(batch), envs.step(batch)):
        assert jax.tree.structure(row.observation) == jax.tree.structure(batch)
        jax.tree.map(np.testing.assert_array_equal, row.observation, batch)
        same = jax.tree.map(lambda x, y: x.dtype == y.dtype, row.observation, batch)
        assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
def test_rows_may_be_kept(make, vectorization):
    envs = make("gym:CartPole-v1", 2, 0, vectorization)
    rows = [envs.reset(), *(envs.step(np.ones(2, np.int32)) for _ in range(12))]
    copies = [jax.tree.map(np.copy, row) for row in rows[:-1]]
    envs.step(np.ones(2, np.int32))
    for row, copy in zip(rows, copies, strict=False):
        jax.tree.map(np.testing.assert_array_equal, tuple(row), tuple(copy))


@pytest.mark.parametrize("vectorization", VECTORIZATIONS)
def test_runs_depend_on_their_seed(make, vectorization):
    def starts(seed):
        envs = make("gym:CartPole-v1", 2, seed, vectorization)
        return [envs.reset().observation, envs.reset().observation]  # the second not a repetition

    same, table = starts(3), np.concatenate([*starts(3), *starts(4)])
    np.testing.assert_array_equal(np.concatenate(same), table[:4])
    assert len(np.unique(table, axis=0)) == 8


def test_first_rows_have_no_reward(make):
    class Paying(SyncVectorEnv):
        def step(self, actions):
            observation, reward, *rest = super().step(actions)
            return observation, reward + 1, *rest

    envs = make(lambda seed, count: Paying([Counting] * count), 2, 4)
    rows = [envs.reset(), *(envs.step(np.zeros(2, np.int32)) for _ in range(9))]
    for row in rows:
        assert (row.reward[row.step_type == StepType.FIRST] == 0).all()
        assert (row.reward[row.step_type != StepType.FIRST] % 10 == 1).all()


def test_autoreset_mode_is_the_environments_own(make):
    def source(seed, count):
        envs = function(SyncVectorEnv, AutoresetMode.NEXT_STEP)(seed, count)
        SAME_STEP(seed, count)  # overwrites the metadata, as both have that of `Counting`
        return envs

    make(source, 2).reset()


@pytest.mark.parametrize("vectorization", ["sync", "native", "envpool"])
def test_discrete_actions_must_be_whole_numbers(make, vectorization):
    envs = make("gym:CartPole-v1", 2, 0, vectorization)
    envs.reset()
    with pytest.raises(TypeError, match="Cannot cast"):
        envs.step(np.array([0.3, 0.7], np.float32))


def test_continuous_actions_reach_envpool(make):
    envs = make("gym:Pendulum-v1", 2, 0, "envpool")
    _, sine, speed = envs.reset().observation.T
    row = envs.step(np.array([[-2.0], [1.5]], np.float32))
    expected = speed + 0.05 * (15 * sine + 3 * np.array([-2.0, 1.5]))
    np.testing.assert_allclose(row.observation[:, 2], expected, atol=1e-5)
    assert envs.spec == make("gym:Pendulum-v1", 2, 0, "sync").spec
    assert make("gym:Catch-v0", 1, 0, "envpool").spec.max_episode_steps is None


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        ("gym:CartPole-v0", 200),
        (lambda seed, count: gymnasium.make_vec("CartPole-v1", count), 500),
        (lambda seed, count: SyncVectorEnv([lambda: gymnasium.make("Acrobot-v1")] * count), 500),
        (lambda seed, count: SyncVectorEnv([Counting] * count), None),
    ],
)
def test_spec_has_the_time_limit(make, source, limit):
    assert make(source, 2).spec.max_episode_steps == limit


def silent(seed, count):
    envs = gymnasium.make_vec("CartPole-v1", count)
    envs.metadata = {}
    return envs


@pytest.mark.parametrize(
    ("source", "vectorization", "parts"),
    [
        (SAME_STEP, "sync", ["autoreset mode", "got SAME_STEP", "make it with autoreset_mode=NEX"]),
        (silent, "sync", ["autoreset mode", "got None"]),
        ("jax:CartPole-v1", "sync", ["gymnasium's, got 'jax:CartPole-v1'", "the DeviceTrainer"]),
        (environments.Catch(), "sync", ["gymnasium's, got Catch(rows=10", "the DeviceTrainer"]),
        (lambda seed, count: Counting(), "sync", ["gymnasium's, got <function", "VectorEnv"]),
        (lambda seed, count: SyncVectorEnv([Counting]), "sync", ["num_envs must be 2, got 1"]),
        ("CartPole-v1", "sync", ["unknown name 'CartPole-v1'; did you mean 'gym:CartPole-v1'"]),
        ("gym:CartPoll-v1", "sync", ["did you mean 'gym:CartPole-v1'?"]),
        ("gym:CartPoll-v1", "native", ["did you mean 'gym:CartPole-v1'?"]),
        ("gym:CartPoll-v1", "envpool", ["did you mean 'gym:CartPole-v1'?"]),
        ("gym:Xyzzy", "envpool", ["envpool.list_all_envs() lists"]),
        ("gym:no_module:Foo-v0", "async", ["needs a package that is missing", "no_module"]),
        ("gym:Acrobot-v1", "native", ["vector_entry_point", "got 'gym:Acrobot-v1'; use 'sync'"]),
        ("gym:phys2d/CartPole-v1", "native", ["got 'gym:phys2d/CartPole-v1'; use 'sync'"]),
        ("gym:CartPole-v1", "synch", ["vectorization: unknown value 'synch'; did you mean 'sync'"]),
    ],
)
def test_errors_say_what_to_do(make, source, vectorization, parts):
    if "phys2d" in str(source):
        pytest.importorskip("flax")  # gymnasium's, which these are made with
    with pytest.raises(SettingError) as error:
        make(source, 2, 0, vectorization)
    assert all(part in str(error.value) for part in parts), str(error.value)
    assert "\n" not in str(error.value)


def test_there_must_be_an_environment():
    with pytest.raises(SettingError, match="num_envs must be at least 1, got 0"):
        make_vector("gym:CartPole-v1", 0)


def test_missing_envpool_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(SettingError, match=r"'envpool' needs .* pip install 'rlws\[envpool\]'"):
        make_vector("gym:CartPole-v1", 2, 0, "envpool")


def test_import_does_not_import_gymnasium():
    code = "import sys, rlws.environments.vector; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SCRIPT = """
import gymnasium, numpy
from rlws.environments.checks import EnvironmentFault
from rlws.environments.vector import make_vector

class Mine(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 1, (1,)), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return numpy.zeros(1, numpy.float32), {}

    def step(self, action):
        import sys
        return numpy.float32([action]), float("jax" in sys.modules), False, False, {}

print("imported")
gymnasium.register("Mine-v0", Mine)
envs = make_vector("gym:Mine-v0", 2, 0, "async")
envs.reset()
row = envs.step(numpy.array([0, 1], numpy.int32))
print(row.observation.tolist(), row.reward.tolist())
envs.close()
"""


@pytest.mark.slow
def test_async_environments_leave_the_main_module_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n[[0.0], [1.0]] [0.0, 0.0]\n", done.stderr


def test_a_process_that_is_killed_is_named():
    vector = make_vector("gym:CartPole-v1", 2, vectorization="async")
    vector.reset()
    processes = vector._envs.unwrapped.processes
    processes[1].kill()
    processes[1].join()
    with pytest.raises(EnvironmentFault, match="environment 1: its process ended by SIGKILL"):
        vector.step(np.zeros(2, np.int32))
    vector.close()
    assert not any(process.is_alive() for process in processes)
