"""What a trainer promises, whichever it is."""

import dataclasses

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
import pytest
from dm_env import specs

from agents_zoo import a2c, dqn, reinforce
from rlws import networks
from rlws.actor import Actor
from rlws.adders import Episodes
from rlws.environments import CartPole, Catch
from rlws.environments.checks import EnvironmentFault
from rlws.learner import Learner
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.acting import clock, compile_acting
from rlws.trainers.row_buffer import RowBuffer
from rlws.types import EnvironmentSpec, Row

SMALL = plain.Config(Episodes(2, 9))
TRAINERS = [HostTrainer(), HostTrainer(num_envs=3), DeviceTrainer(), DeviceTrainer(num_envs=3)]
IDS = ["host", "host3", "device", "device3"]


def train(trainer, config=SMALL, environment="jax:Catch", **budget):
    return list(trainer.train(config, environment, **budget))


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer",
    [*TRAINERS[::2], *(pytest.param(x, marks=pytest.mark.slow) for x in TRAINERS[1::2])],
    ids=IDS[::2] + IDS[1::2],
)
def test_budgets_are_kept(trainer):
    reports = train(trainer, steps=200, report_period=50)
    assert reports[0].steps == reports[0].updates == 0
    assert 200 <= reports[-1].steps < 200 + trainer.num_envs
    assert [r.steps // 50 for r in reports] == [0, 1, 2, 3, 4]
    episodes = sum(len(r.returns) for r in reports)
    # Catch lasts nine steps: the steps of ended episodes and of those under way make up the total.
    assert episodes == reports[-1].episodes
    assert all(length == 9 for r in reports for length in r.lengths)
    assert all(ret in (-1, 1) for r in reports for ret in r.returns)
    assert 0 <= reports[-1].steps - 9 * episodes <= 9 * trainer.num_envs
    # Two episodes an update, and with several environments some are dropped.
    fewest = episodes // (2 if trainer.num_envs == 1 else 6)
    assert fewest - 1 <= reports[-1].updates <= episodes // 2


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS[::2], ids=IDS[::2])
def test_episode_budget_ends_with_the_episode(trainer):
    last = train(trainer, episodes=5)[-1]
    assert (last.episodes, last.steps) == (5, 45)


@pytest.mark.parametrize("trainer", TRAINERS[::2], ids=IDS[::2])
def test_zero_budget_reports_once(trainer):
    (report,) = train(trainer, steps=0)
    assert (report.steps, report.updates, report.metrics, len(report.returns)) == (0, 0, {}, 0)


@pytest.mark.parametrize("trainer", TRAINERS[::2], ids=IDS[::2])
@pytest.mark.parametrize("budget", [{}, {"steps": -1}, {"episodes": -3}])
def test_wrong_budget_is_named(trainer, budget):
    with pytest.raises(SettingError, match=r"steps|episodes"):
        train(trainer, **budget)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS, ids=IDS)
def test_reports_change_nothing(trainer):
    last = [train(trainer, steps=150, report_period=period)[-1] for period in (7, 1000)]
    jax.tree.map(np.testing.assert_array_equal, *(jax.device_get(r.params) for r in last))
    assert last[0].steps == last[1].steps


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS[::2], ids=IDS[::2])
def test_metrics_are_means_over_the_updates_since_the_last_report(trainer):
    each = train(trainer, episodes=9, report_period=1)
    once = train(trainer, episodes=9, report_period=10**6)[-1]
    losses = [report.metrics["loss"] for report in each if report.metrics]
    assert len(losses) == once.updates == 4
    np.testing.assert_allclose(once.metrics["loss"], np.mean(losses), rtol=1e-4)


@pytest.mark.slow
def test_host_trainer_without_jit_learns_the_same():
    config = plain.Config(Episodes(1, 9))
    on, off = (train(HostTrainer(jit=jit), config, episodes=2)[-1] for jit in (True, False))
    assert on.updates == off.updates == 1
    run = HostTrainer(jit=False).train(config, "jax:Catch", episodes=2)
    next(run)
    assert not jax.config.jax_disable_jit  # where reports are looked at
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)
    jax.tree.map(close, on.params, off.params)


@pytest.mark.slow
def test_everything_is_traced_once():
    traces = []

    class Learner(reinforce.Reinforce):
        def loss(self, *args):
            traces.append(1)
            return super().loss(*args)

    class Config(reinforce.Config):
        def make(self, spec):
            agent = super().make(spec)
            return dataclasses.replace(
                agent, learner=Learner(agent.learner.network, agent.learner.optimizer, self)
            )

    for trainer in (HostTrainer(), DeviceTrainer()):
        traces.clear()
        config = Config(episodes_per_update=2)
        reports = trainer.train(config, "jax:Catch", episodes=25, report_period=13)
        counts = [(progress.updates, len(traces)) for progress in reports]
        assert counts[-1][0] == 12
        assert len({count for updates, count in counts if updates}) == 1


@pytest.mark.parametrize("period", [1, 4], ids=["row by row", "in blocks"])
@pytest.mark.slow
def test_another_seed_is_neither_traced_nor_compiled_again(period):
    traces = []

    class Learner(dqn.DQN):
        def loss(self, *args):
            traces.append(1)
            return super().loss(*args)

    class Config(dqn.Config):
        def make(self, spec):
            agent = super().make(spec)
            traces.append(0)
            return dataclasses.replace(agent, learner=Learner(**vars(agent.learner)))

    config = Config(networks.MLP((4,)), min_size=8, capacity=16, batch_size=2, period=period)
    ends, counts = [], []
    for seed in (0, 1, 0):
        *_, last = train(HostTrainer(), config, seed=seed, steps=20)
        ends.append(jax.device_get(jax.tree.leaves(last.params)[-1]))
        counts.append(len(traces))
    assert counts[0] == counts[1] == counts[2] > 1
    np.testing.assert_array_equal(ends[0], ends[2])
    assert not np.array_equal(ends[0], ends[1])
    train(HostTrainer(num_envs=2), config, steps=20)
    assert len(traces) > counts[0]


def test_device_trainer_refuses_a_host_environment():
    with pytest.raises(SettingError, match=r"written in JAX, got 'gym:CartPole-v1'.*HostTrainer"):
        train(DeviceTrainer(), environment="gym:CartPole-v1", steps=10)


class Poisoned(Catch):
    """Catch that shows NaN in its fifth step."""

    def step(self, state, action):
        state, timestep = super().step(state, action)
        rows = jnp.argmax(timestep.observation[:-1].sum(axis=1))
        observation = jnp.where(rows == 5, jnp.nan, timestep.observation)
        return state, timestep._replace(observation=observation)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", TRAINERS, ids=IDS)
def test_nan_observation_stops_the_run_before_it_is_learned_from(trainer):
    with pytest.raises(SettingError, match=r"(environment|Poisoned).*finite, got"):
        train(trainer, environment=Poisoned(), steps=500)


@pytest.mark.slow
def test_nan_after_the_last_row_of_a_block_is_not_learned_from_either():
    config = a2c.Config(networks.MLP((4,)), unroll_length=5)
    with pytest.raises(SettingError, match=r"Poisoned.*finite, got"):
        train(DeviceTrainer(), config, environment=Poisoned(), steps=500)


def test_environment_factory_is_checked():
    with pytest.raises(SettingError, match=r"must be a dm_env\.Environment.*got None"):
        train(HostTrainer(), environment=lambda seed, index: None, steps=10)


def test_environments_are_closed_when_training_fails():
    closed = []

    class Failing(dm_env.Environment):
        def reset(self):
            raise RuntimeError("boom")

        step = reset

        def observation_spec(self):
            return specs.Array((2,), np.float32)

        def action_spec(self):
            return specs.DiscreteArray(2)

        def close(self):
            closed.append(1)

    config = reinforce.Config(max_episode_length=5)
    with pytest.raises(RuntimeError, match="boom"):
        train(HostTrainer(num_envs=2), config, lambda seed, index: Failing(), steps=10)
    assert closed == [1, 1]


class Nested(dm_env.Environment):
    """Nested observations; rewards tell whether the action arrived as it was chosen."""

    max_episode_steps = 4

    def __init__(self):
        self.t = 0

    def _observation(self):
        return {"position": np.full(2, self.t, np.float32), "clock": np.int32(self.t)}

    def reset(self):
        self.t = 0
        return dm_env.restart(self._observation())

    def step(self, action):
        assert action in (0, 1, 2)
        assert isinstance(action, np.integer)
        self.t += 1
        if self.t == 4:
            return dm_env.termination(1.0, self._observation())
        return dm_env.transition(0.0, self._observation())

    def observation_spec(self):
        return {"position": specs.Array((2,), np.float32), "clock": specs.DiscreteArray(5)}

    def action_spec(self):
        return specs.DiscreteArray(3)


@pytest.mark.slow
def test_nested_observations_train_on_the_host():
    config = reinforce.Config(networks.MLP((8,)), episodes_per_update=2)
    last = train(HostTrainer(num_envs=2), config, lambda seed, index: Nested(), episodes=9)[-1]
    assert last.updates > 0


def of(observations):
    """Returns the spec of an environment with such observations."""
    scalar = specs.Array((), np.float32)
    return EnvironmentSpec(observations, specs.DiscreteArray(2), scalar, scalar)


BEGUN = [0, 0], [0, 0]  # episodes and their steps, where a block begins


def test_block_holds_what_was_written():
    example = Row(
        dm_env.TimeStep(np.int32(0), np.float32(0), np.float32(0), np.zeros(2, np.float32)),
        np.int32(0),
    )
    block = RowBuffer(
        example, 3, 2, [True, False, False, True], of(specs.Array((2,), np.float32)), BEGUN
    )
    first = dm_env.restart(np.float32([1, 2]))
    last = dm_env.truncation(3.0, np.float32([4, 5]), discount=0.5)
    step_type, observation = block.begin([first, last])
    np.testing.assert_array_equal(step_type, [0, 2])
    np.testing.assert_array_equal(observation, [[1, 2], [4, 5]])
    action = block.end(jnp.array([7, 8]), ())
    assert isinstance(action, np.ndarray)
    np.testing.assert_array_equal(action, [7, 8])
    assert block.rows.action.shape == (3, 2)
    rows = jax.tree.map(lambda x: x[0].tolist(), block.rows)
    expected = dm_env.TimeStep([0, 2], [0.0, 3.0], [1.0, 0.5], [[1, 2], [4, 5]])
    assert (block.length, rows) == (1, Row(expected, [7, 8]))


def test_block_knows_the_timesteps_that_follow_its_rows():
    block = RowBuffer(
        Row(
            dm_env.TimeStep(np.int32(0), np.float32(0), np.float32(0), {"x": np.zeros((), int)}),
            {"left": np.int32(0), "right": np.zeros(2, np.float32)},
            {"extra": np.float32(0)},
        ),
        2, 2, [False, False, False, True], of({"x": specs.Array((), np.int64)}), BEGUN,
    )  # fmt: skip
    timestep = lambda t: dm_env.transition(np.float32(t), {"x": np.int64(10 * t)})
    for t in range(2):
        (seen,) = block.begin([timestep(t), timestep(t + 5)])
        np.testing.assert_array_equal(seen, [10 * t, 10 * t + 50])
        answered = {"left": jnp.array([t, 3]), "right": jnp.full((2, 2), 4.0)}
        action = block.end(answered, {"extra": jnp.array([t, -1.0])})
        jax.tree.map(np.testing.assert_array_equal, action, answered)
    following = block.following([timestep(2), timestep(7)])
    np.testing.assert_array_equal(following.reward, [2, 7])
    np.testing.assert_array_equal(following.observation["x"], [20, 70])
    # As the timesteps of a vector environment come, too.
    again = block.following(jax.tree.map(lambda x: x + 1, following))
    np.testing.assert_array_equal(again.observation["x"], [21, 71])
    rows = block.rows
    np.testing.assert_array_equal(rows.timestep.observation["x"], [[0, 50], [10, 60]])
    np.testing.assert_array_equal(rows.action["left"], [[0, 3], [1, 3]])
    np.testing.assert_array_equal(rows.extras["extra"], [[0, -1], [1, -1]])
    assert block.length == 2


@pytest.mark.parametrize(
    ("step_types", "says"),
    [
        ([0, 1, 2, 0], None),
        ([1, 2, 0, 2], None),
        ([1, 0, 1, 1], "episode 4, step 4: step_type must be FIRST .* got 0"),
        ([0, 0, 1, 1], "episode 4, step 4: step_type must be FIRST .* got 0"),
        ([1, 1, 2, 1], "episode 5, step 0: step_type must be FIRST .* got 1"),
        ([1, 2, 2, 0], "episode 5, step 0: step_type must be FIRST .* got 2"),
        ([1, 3, 0, 1], "episode 4, step 4: step_type must be FIRST .* got 3"),
    ],
)
def test_block_checks_the_order_of_rows_and_of_the_one_that_follows(step_types, says):
    make = lambda kind: dm_env.TimeStep(kind, 0.0, 1.0, np.zeros(2, np.float32))
    example = Row(jax.tree.map(np.asarray, make(np.int32(0))), np.int32(0))
    block = RowBuffer(
        example, 3, 2, [False] * 4, of(specs.Array((2,), np.float32)), ([0, 4], [0, 3])
    )
    right = [0, 1, 1, 1]
    for ours, theirs in zip(right[:-1], step_types[:-1], strict=True):
        block.begin([make(ours), make(theirs)])
        block.end(np.zeros(2, np.int32), ())
    block.following([make(right[-1]), make(step_types[-1])])
    if says is None:
        block.check()
        return
    with pytest.raises(EnvironmentFault, match="environment 1, " + says):
        block.check()


class Peeking(Actor):
    """Reads the reward and one parameter of two."""

    def select_action(self, params, timestep, state, key):
        action = (params["read"] + timestep.reward > 0).astype(jnp.int32)
        return action, state, {}


def test_acting_takes_only_what_the_actor_reads():
    spec = EnvironmentSpec(specs.Array((2,), np.float32), specs.DiscreteArray(2), None, None, 5)
    params = {"ignored": jnp.float32(1), "read": jnp.float32(-1)}
    network = networks.Network(lambda key: params, lambda params, observation: None)
    learner = Learner(network, optax.sgd(0.0))
    agent = dataclasses.replace(SMALL.make(spec), actor=Peeking(), learner=learner)
    acting = compile_acting(agent, spec, 2)
    assert acting.params.live == [False, True]
    # Of step type, reward, discount and observation.
    assert acting.timestep.live == [False, True, False, False]
    read = acting.params.take(params)
    now = clock(seed=5, step=3)
    action, state, extras, after = acting.program(read, now, [np.float32([0, 2])], ())
    assert (action.tolist(), state, extras) == ([0, 1], (), {})
    assert after.tolist() == clock(seed=5, step=4).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("num_envs", [1, 4])
def test_device_environments_restart_with_new_episodes(num_envs):
    reports = train(DeviceTrainer(num_envs=num_envs), environment=CartPole(), steps=400 * num_envs)
    lengths = np.concatenate([r.lengths for r in reports])
    returns = np.concatenate([r.returns for r in reports])
    np.testing.assert_array_equal(lengths, returns)
    assert len(set(lengths)) > 3
