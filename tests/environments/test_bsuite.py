"""The Behaviour Suite as ours."""

import functools

import jax
import numpy as np
import pytest
from absl.testing import absltest
from dm_env import StepType, specs, test_utils

pytest.importorskip("bsuite")

from bsuite import bsuite, sweep
from bsuite.environments import base
from bsuite.logging import csv_load

from agents_zoo import ppo
from rlws import environments, networks
from rlws.environments import bsuite_adapter, resolve
from rlws.environments.bsuite_adapter import BsuiteEnvironment
from rlws.environments.repeats import repeats
from rlws.numerics import streams, trees
from rlws.settings import SettingError
from rlws.trainers import HostTrainer
from rlws.trainers.trainer import Snapshot

EXPERIMENTS = sorted({name.partition("/")[0] for name in sweep.SWEEP if "mnist" not in name})
STILL = {"bandit", "bandit_scale", "discounting_chain"}  # draw nothing while they are played
CONSTANT = {*STILL, "deep_sea"}  # play the same episode every time


def bare(name):
    """Returns bsuite's own environment."""
    return bsuite.load(name.partition("/")[0], sweep.SETTINGS[name])


def actions(env, count, seed=0):
    """Returns this many random actions, as agents give them."""
    found = np.random.default_rng(seed).integers(0, env.action_spec().num_values, count)
    return list(found.astype(np.int32))


def play(env, actions):
    """Returns all that an environment says, as bytes."""
    timesteps = [env.reset(), *map(env.step, actions)]
    leaves = [x for t in timesteps for x in (*t[:3], t.observation)]
    return b"".join(np.asarray(np.nan if x is None else x).tobytes() for x in leaves)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_steps_are_bsuites_own(experiment):
    ours, theirs = BsuiteEnvironment(name := f"{experiment}/3", 7, 2), bare(f"{experiment}/3")
    episode = 0

    def seeded():
        for i, generator in enumerate(bsuite_adapter._generators(theirs)):
            counters = streams.Stream.ENVIRONMENT, 2, episode, i
            generator.seed(streams.host_seed(7, *counters))

    seeded()
    pairs, ends = [(ours.reset(), theirs.reset())], set()
    for action in actions(ours, 1200):
        if pairs[-1][1].last():
            episode += 1
            seeded()
        pairs.append((ours.step(action), theirs.step(action)))
        if pairs[-1][1].last():
            ends.add(pairs[-1][0].discount)
    for found, expected in pairs:
        assert found[:3] == expected[:3]
        np.testing.assert_array_equal(found.observation, expected.observation)
        ours.observation_spec().validate(found.observation)
    assert ours.action_spec() == specs.DiscreteArray(theirs.action_spec().num_values, np.int32)
    assert ends == {0.0}
    assert ours.num_episodes == theirs.bsuite_num_episodes == sweep.EPISODES[name]


def test_time_limits_are_terminations_as_bsuite_means_them():
    env = BsuiteEnvironment("mountain_car/0")
    env.reset()
    *timesteps, last = [env.step(np.int32(1)) for _ in range(1000)]  # it stays in the valley
    assert not any(t.last() for t in timesteps)
    assert last[:3] == (StepType.LAST, -1.0, 0.0)
    assert last.observation[0, 2] == 1.0  # the time, which agents see


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_max_episode_steps_is_how_long_an_episode_gets(experiment):
    env = BsuiteEnvironment(f"{experiment}/3")
    inside = vars(getattr(env._env, "raw_env", env._env))
    inside["_height_threshold"] = -2.0  # no pole falls
    env.reset()
    limit = environments.spec(env).max_episode_steps
    # Where there are three, nothing is pushed.
    steps = [env.step(np.int32(env.action_spec().num_values == 3)) for _ in range(limit)]
    assert [t.last() for t in steps] == [False] * (limit - 1) + [True]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_episodes_repeat_bit_for_bit_wherever_they_begin(experiment):
    first, second, other = (BsuiteEnvironment(f"{experiment}/3", 5, index) for index in (2, 2, 1))
    chosen = actions(first, 60)
    play(first, chosen[:7])  # what went before leaves no trace
    first.episode = second.episode = other.episode = 1
    expected = play(first, chosen)
    assert play(second, chosen) == expected
    assert (play(other, chosen) != expected) == (experiment not in CONSTANT)


@pytest.mark.parametrize("experiment", sorted(CONSTANT))
def test_what_an_id_fixes_is_the_same_in_all_runs(experiment):
    one, other, another = (f"{experiment}/{i}" for i in (3, 3, 4))
    chosen = actions(BsuiteEnvironment(one), 400)
    assert play(BsuiteEnvironment(one, 1), chosen) == play(BsuiteEnvironment(other, 2, 3), chosen)
    assert play(BsuiteEnvironment(another, 1), chosen) != play(BsuiteEnvironment(one, 1), chosen)


def test_noise_is_not_what_the_environment_draws():
    env = BsuiteEnvironment("cartpole_noise/0")
    env.reset()
    inner, outer = (generator.get_state()[1] for generator in env._draws)
    assert (inner != outer).any()


def test_seeds_differ_and_actions_are_ignored_where_an_episode_begins():
    starts = {
        (seed, index, episode): play(env, [])
        for seed in (0, 1)
        for index in (0, 1)
        for env in [BsuiteEnvironment("cartpole/0", seed, index)]
        for episode in range(3)
    }
    assert len({*starts.values()}) == 12
    env = BsuiteEnvironment("cartpole/0")
    assert env.step(object()).first()
    while not env.step(np.int32(0)).last():
        pass
    assert env.step(object()).first()
    assert env.episode == 2


class CatchTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
        return environments.make("bsuite:catch/0")

    def make_action_sequence(self):
        return (self.make_action() for _ in range(40))


class NoisySwingUpTest(CatchTest):
    def make_object_under_test(self):
        return environments.make("bsuite:cartpole_noise/19")


def test_names_are_bsuites_ids_without_mnist():
    found = {name for name in environments.available() if name.startswith("bsuite:")}
    assert found == {f"bsuite:{name}" for name in sweep.SWEEP if not name.startswith("mnist")}
    assert len(found) == 408
    assert not resolve.is_jax("bsuite:catch/0")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("bsuite:catch", "did you mean 'bsuite:catch/0'"),
        ("bsuite:catch/21", "did you mean 'bsuite:catch/"),
        ("bsuite:deepsea/3", "did you mean 'bsuite:deep_sea/3'"),
    ],
)
def test_unknown_name_says_what_was_meant(name, remedy):
    with pytest.raises(SettingError, match=f"unknown name '{name}'; ") as error:
        environments.make(name)
    assert remedy in str(error.value)


def test_mnist_is_left_out():
    with pytest.raises(SettingError, match="'bsuite:mnist_noise/3' is not here, as it would down"):
        environments.make("bsuite:mnist_noise/3")


def test_max_episode_steps_cannot_be_replaced():
    with pytest.raises(SettingError, match="'bsuite:catch/0' has no setting 'max_episode_steps'"):
        environments.make("bsuite:catch/0", max_episode_steps=3)


def recorded(folder, name="catch/0", episodes=30, **settings):
    """Plays episodes; returns the path of the record and the returns."""
    env, returns = BsuiteEnvironment(name, record=str(folder), **settings), []
    for action in actions(env, 10_000):
        timestep = env.step(action)
        if timestep.first():
            returns.append(0.0)
            continue
        returns[-1] += timestep.reward
        if timestep.last() and len(returns) == episodes:
            break
    seed, index = settings.get("seed", 0), settings.get("index", 0)
    return folder / f"{seed}-{index}" / f"bsuite_id_-_{name.replace('/', '-')}.csv", returns


def test_record_is_what_bsuites_analysis_reads(tmp_path):
    path, returns = recorded(tmp_path, seed=4, index=1)
    assert path.is_file()
    table, _ = csv_load.load_bsuite(str(path.parent))
    assert list(table.episode) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 25, 30]
    assert list(table.steps) == [9 * episode for episode in table.episode]
    totals = np.cumsum(returns)[np.asarray(table.episode) - 1]
    assert list(table.total_return) == list(totals)
    assert list(table.total_regret) == list(np.asarray(table.episode) - totals)
    assert set(table.bsuite_id) == {"catch/0"}


def test_recorded_episodes_are_those_that_are_not(tmp_path):
    plain = BsuiteEnvironment("cartpole/0", 3)
    logged = BsuiteEnvironment("cartpole/0", 3, record=str(tmp_path))
    chosen = actions(plain, 300)
    assert play(plain, chosen) == play(logged, chosen)


@pytest.mark.slow
def test_bsuites_scores_can_be_computed_of_a_record(tmp_path):
    analysis = pytest.importorskip("bsuite.experiments.summary_analysis")
    for name in ("catch/0", "bandit/0", "umbrella_length/3"):
        recorded(tmp_path, name)
    table, _ = csv_load.load_bsuite(str(tmp_path / "0-0"))
    scores = analysis.bsuite_score(table)
    assert set(scores.bsuite_env) == {"catch", "bandit", "umbrella_length"}
    assert not scores.finished.any()
    assert ((scores.score >= 0) & (scores.score < 0.5)).all()


def test_record_of_another_process_is_not_written_over(tmp_path, monkeypatch):
    path, _ = recorded(tmp_path, episodes=5)
    recorded(tmp_path, episodes=3)  # of this one, it is
    text = path.read_text()
    assert len(text.splitlines()) == 4
    monkeypatch.setattr(bsuite_adapter, "_written", set())
    with pytest.raises(SettingError, match=r"record: .*already exists"):
        recorded(tmp_path)
    assert path.read_text() == text


def test_record_is_not_of_whoever_tries_an_environment(tmp_path):
    env = BsuiteEnvironment("bandit/0", record=str(tmp_path))
    assert not repeats(env)  # as it says itself that it cannot
    assert repeats(BsuiteEnvironment("bandit/0"))
    assert not [*tmp_path.iterdir()]


def test_an_evaluation_is_not_recorded(tmp_path):
    name = f"bsuite:bandit/0,record={tmp_path}"
    for training in (False, True):
        env = resolve.host(name, 0, 0, training=training)
        for _ in range(6):
            env.step(np.int32(0))
        assert bool([*tmp_path.rglob("*.csv")]) == training


def test_record_cannot_go_on_elsewhere(tmp_path):
    env = BsuiteEnvironment("catch/0", record=str(tmp_path))
    env.reset()
    env.episode = 7
    with pytest.raises(SettingError, match=r"record: .* the next must be 1, got 7; begin the run"):
        env.reset()


PPO = ppo.Config(networks.MLP((8,)), unroll_length=16, epochs=2, minibatches=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bsuite:catch_noise/4", "bsuite:deep_sea_stochastic/0"])
def test_agents_learn_and_resume_exactly(name):
    train = functools.partial(HostTrainer(num_envs=2).train, PPO, name, steps=160)
    *_, whole = train(report_period=100)
    assert whole.updates > 0
    reports = train(report_period=100)
    arrays, facts = next(reports).snapshot()
    reports.close()  # in the middle of an episode
    snapshot = Snapshot(trees.flatten(jax.tree.map(np.array, arrays)), facts)
    *_, resumed = train(report_period=100, resume=snapshot)
    for x, y in zip(*map(jax.tree.leaves, (whole.params, resumed.params)), strict=True):
        np.testing.assert_array_equal(x, y)


def test_recording_runs_leave_a_record_of_each_environment(tmp_path):
    source = lambda seed, index: BsuiteEnvironment("catch/0", seed, index, str(tmp_path))
    [*_] = HostTrainer(num_envs=2).train(PPO, source, steps=160, seed=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6-0", "6-1"]


def test_base_is_stepped_without_its_own_restart():
    env = BsuiteEnvironment("catch/0")
    assert env._env_step.__func__ is type(env._env)._step
    assert type(env._env).step is base.Environment.step
