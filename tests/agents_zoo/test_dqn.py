"""DQN: targets of a tabular network by hand, exploration, and the target network."""

import dataclasses
import functools
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents_zoo import dqn
from rlws import environments
from rlws.actor import EpsilonGreedy
from rlws.adders import PrioritisedReplay, Replay
from rlws.learner import LearnerState
from rlws.networks import GRU, MLP, Network
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer, core, initial
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)
# Q of observation i and action j, of the network and of its target.
ONLINE = np.float32([[1, 2], [5, 3], [0, 4], [7, 6]])
TARGET = np.float32([[0, 0], [10, 20], [30, 40], [50, 60]])


class Outputs(NamedTuple):
    q: jax.Array


TABLE = Network(
    lambda key: ONLINE, lambda params, observation: Outputs(q=jnp.asarray(params)[observation])
)


@functools.cache
def compiled(**settings):
    """Returns the compiled loss of parameters, target and trajectory."""
    learner = dqn.DQN(TABLE, optax.sgd(1.0), dqn.Config(discount=0.5, **settings))
    return jax.jit(lambda p, target, x: learner.loss(p, x, KEY, LearnerState(p, (), target)))


def loss(trajectory, **settings):
    """Returns the loss of each step, and its metrics."""
    return compiled(**settings)(ONLINE, TARGET, trajectory)


@pytest.mark.parametrize(
    ("double", "discount", "target"),
    [
        (False, 1.0, 1 + 0.5 * 20),  # the largest value of the target network
        (True, 1.0, 1 + 0.5 * 10),  # its value of the action the network prefers
        (True, 0.0, 1.0),  # terminated
    ],
)
def test_dqn_targets(double, discount, target):
    steps = trajectory(reward=[1], action=[1], discount=[discount])
    found, _ = loss(steps, double=double)
    np.testing.assert_allclose(found, [(target - 2) ** 2 / 2])
    found, _ = loss(steps, double=double, loss="huber")
    np.testing.assert_allclose(found, [abs(target - 2) - 0.5])


def test_dqn_bootstraps_a_truncated_episode_from_its_last_observation():
    steps = trajectory(reward=[1], action=[1], discount=[1], last=[True])
    np.testing.assert_allclose(loss(steps)[0], [(1 + 0.5 * 10 - 2) ** 2 / 2])


def test_dqn_n_steps_within_a_sequence_stop_at_its_ends():
    steps = trajectory(reward=[1, 1, 1], action=[0, 0, 0], last=[False, True, False])
    found, _ = loss(steps, n_step=3, double=False)
    # From 0 and 1: to the end of the episode at observation 2. From 2: to observation 3.
    targets = np.array([1 + 0.5 + 0.25 * 40, 1 + 0.5 * 40, 1 + 0.5 * 60])
    np.testing.assert_allclose(found, (targets - [1, 5, 0]) ** 2 / 2)


def test_dqn_gradient_is_of_the_value_and_not_of_its_target():
    steps = trajectory(reward=[1], action=[1])
    grads = jax.jit(jax.grad(lambda p: compiled()(p, ONLINE, steps)[0].sum()))(ONLINE)
    expected = np.zeros((4, 2))
    expected[0, 1] = 2 - (1 + 0.5 * 5)
    np.testing.assert_allclose(grads, expected)


def test_dqn_priority_is_the_absolute_error():
    steps = trajectory(reward=[1], action=[1])
    _, metrics = loss(steps, prioritised=True)
    np.testing.assert_allclose(metrics["priority"], 4.0)
    sequence = trajectory(reward=[1, 1], action=[0, 0], weight=[1, 0])
    _, metrics = loss(sequence, prioritised=True, double=False)
    np.testing.assert_allclose(metrics["priority"], 10 * (0.9 + 0.05))  # of weighty steps


def test_dqn_target_is_a_copy_now_and_then():
    spec = environments.make("jax:CartPole-v1").spec()
    agent = dqn.Config(backbone=MLP((8,)), target_period=3).make(spec)
    state = jax.jit(agent.learner.init)(KEY)
    batch = trajectory(observation=np.ones((2, 4), np.float32) * [[1], [2]], reward=[1], action=[0])
    batch = jax.tree.map(lambda x: x[None], batch)
    same = lambda x, y: jax.tree.all(jax.tree.map(np.array_equal, x, y))
    learn = jax.jit(agent.learner.learn)
    targets = [state.extra]
    for update in range(1, 8):
        state, _ = learn(state, batch, KEY)
        assert same(state.extra, state.params) == (update % 3 == 0)
        assert same(state.extra, targets[-1]) == (update % 3 != 0)
        targets.append(state.extra)


@pytest.mark.parametrize("num_envs", [1, 8])
def test_dqn_epsilon_is_a_function_of_environment_steps(num_envs):
    """Greedy actions are 1; so 0 shows a random one, half of the time."""
    network = Network(lambda key: {}, lambda params, o: Outputs(q=jnp.array([0.0, 1.0])))
    actor = EpsilonGreedy(network, 1.0, 0.2, 1000)
    state = initial.initial_actor_state(actor, num_envs)
    step_type = np.full(num_envs, dm_env.StepType.MID)
    timestep = dm_env.TimeStep(step_type, np.zeros(num_envs), np.ones(num_envs), np.zeros(num_envs))

    def step(state, t):
        action, state, _ = core.act(actor, {}, np.zeros(2, np.uint32), t, timestep, state)
        return state, action

    actions = jax.jit(lambda s: jax.lax.scan(step, s, np.arange(4000 // num_envs))[1])(state)
    zeros = (np.asarray(actions).ravel() == 0).reshape(8, -1).mean(axis=1)
    now = np.minimum(np.arange(4000) / 1000, 1.0)
    expected = ((1.0 - 0.8 * now) / 2).reshape(8, -1).mean(axis=1)
    np.testing.assert_allclose(zeros, expected, atol=0.07)


def test_dqn_does_not_count_the_ignored_step():
    actor = EpsilonGreedy(TABLE, 1.0, 0.0, 10)
    timestep = lambda kind: dm_env.TimeStep(
        np.int32([kind]), np.zeros(1), np.ones(1), np.zeros(1, int)
    )
    act = jax.jit(lambda now, state: core.act(actor, ONLINE, key, 0, now, state)[1])
    state, key = initial.initial_actor_state(actor, 1), np.zeros(2, np.uint32)
    for kind in (0, 1, 2, 0, 2):
        state = act(timestep(kind), state)
    assert state[1] == 3


def test_dqn_uses_no_key_twice():
    actor = EpsilonGreedy(TABLE, 1.0, 0.0, 10)
    timestep = dm_env.TimeStep(np.zeros(1, int), np.zeros(1), np.ones(1), np.zeros(1, int))
    state = initial.initial_actor_state(actor, 1)
    act = lambda key: core.act(actor, ONLINE, key, 0, timestep, state)[0]
    with jax.debug_key_reuse(True):
        jax.jit(act).lower(np.zeros(2, np.uint32))  # or raises


def test_dqn_settings_choose_the_replay():
    spec = environments.make("jax:CartPole-v1").spec()
    adder = dqn.Config(n_step=3, period=4, updates=2).make(spec).adder
    assert type(adder) is Replay
    assert (adder.n_step, adder.discount, adder.length) == (3, 0.99, 1)
    assert adder.schedule(1) == (4, 2)
    assert adder.schedule(8) == (1, 4)
    assert isinstance(dqn.Config(prioritised=True).make(spec).adder, PrioritisedReplay)
    recurrent = dqn.Config(backbone=GRU(), sequence_length=8, burn_in=4, n_step=3).make(spec)
    assert (recurrent.adder.length, recurrent.adder.n_step) == (12, 1)
    with pytest.raises(SettingError, match="sequence_length must be above 1 for a recurrent"):
        dqn.Config(backbone=GRU()).make(spec)


def test_dqn_burn_in_gets_no_gradient_and_warms_up_the_core():
    spec = environments.make("jax:CartPole-v1").spec()
    config = dqn.Config(backbone=GRU(MLP((8,)), 8), sequence_length=4, burn_in=3)
    learner = config.make(spec).learner
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(8, 4)).astype(np.float32)
    steps = trajectory(observation=observation, reward=np.ones(7), action=np.zeros(7, np.int32))
    core = {"backbone": rng.normal(size=(7, 8)).astype(np.float32)}
    steps = steps._replace(extras={"core": core})

    @jax.jit
    def compute(steps):
        state = learner.init(KEY)

        def loss(observation):
            x = steps._replace(observation=observation)
            found = learner.loss(state.params, x, KEY, state)[0]
            return found.sum(), found

        grads, found = jax.grad(loss, has_aux=True)(steps.observation)
        warm = learner.network.warm_up(state.params, steps, 3)
        whole, rest = (learner.network.unroll(state.params, x).q for x in (steps, warm))
        batch = jax.tree.map(lambda x: x[None], steps)
        return grads, found, whole, rest, learner.learn(state, batch, KEY)[1]

    grads, found, whole, rest, metrics = jax.device_get(compute(steps))
    np.testing.assert_array_equal(grads[:3], 0)
    assert np.abs(grads[3:7]).max(axis=1).min() > 0
    np.testing.assert_array_equal(found[:3], 0)
    # The state after the burn-in is that of one long unroll.
    np.testing.assert_allclose(rest, whole[3:], atol=1e-6)
    # Steps that warm up are none of those whose mean is taken.
    assert metrics["loss"] == pytest.approx(found[3:].mean(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"n_step": 3, "duelling": True, "prioritised": True, "beta_steps": 500},
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            {"period": 8, "updates": 2, "double": False, "loss": "huber"},
            marks=pytest.mark.thorough,
        ),
        {"backbone": GRU(MLP((8,)), 8), "sequence_length": 6, "burn_in": 2, "period": 4},
    ],
    ids=["rainbow", "periodic", "recurrent"],
)
def test_dqn_host_and_device_agree(settings):
    config = dqn.Config(backbone=MLP((16,)), min_size=64, capacity=200, batch_size=16)
    config = dataclasses.replace(config, **settings)
    last = []
    for trainer in (HostTrainer(num_envs=2), DeviceTrainer(num_envs=2)):
        *_, progress = trainer.train(config, "jax:CartPole-v1", seed=3, steps=400)
        last.append((progress.updates, jax.device_get(progress.params), progress.episodes))
    (updates, ours, episodes), (theirs_updates, theirs, theirs_episodes) = last
    assert (updates, episodes) == (theirs_updates, theirs_episodes)
    assert updates > 30
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), ours, theirs)
