"""Vital signs: against NumPy and by hand, and of every agent of the zoo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import a2c, ddpg, dqn, impala, ppo, reinforce, sac, td3
from rlws import environments, networks
from rlws.numerics import vitals
from rlws.settings import SettingError
from rlws.trainers import HostTrainer, initial
from rlws.types import Trajectory


def drawn(*shape):
    return np.random.default_rng(len(shape)).normal(3, 2, shape).astype(np.float32)


explained_variance, spread = jax.jit(vitals.explained_variance), jax.jit(vitals.spread)
WEIGHT = np.float32([[1, 0.5, 0], [1, 0, 0], [0, 0, 0], [1, 1, 2]])
REAL = WEIGHT > 0


def with_nan(x):
    """Returns x with NaN where nothing has weight."""
    return np.where(REAL.reshape(*REAL.shape, *[1] * (x.ndim - 2)), x, np.float32(np.nan))


def test_explained_variance_is_numpys_where_there_is_weight():
    target, noise = drawn(4, 3), drawn(1, 4, 3)[0]
    value = target + 0.3 * noise
    found = explained_variance(with_nan(value), with_nan(target), WEIGHT)
    expected = 1 - (target - value)[REAL].var() / target[REAL].var()
    assert 0 < expected < 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4], 1),
        ([5, 6, 7, 8], 1),  # an offset explains nothing away
        ([7, 7, 7, 7], 0),  # as much as any number does
        ([2, 2, 3, 3], 1 - 0.5 / 1.25),
        ([4, 3, 2, 1], -1),  # 1 - 5 / 1.25, cut
    ],
)
def test_explained_variance_by_hand(values, expected):
    values, targets = np.float32([values]), np.float32([[1, 2, 3, 4]])
    found = explained_variance(values, targets, np.ones((1, 4)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_explained_variance_of_targets_that_are_all_the_same_is_finite():
    targets = np.full((1, 4), 1000.7, np.float32)
    for values, expected in ((targets, 1), (drawn(1, 4), -1)):
        assert explained_variance(values, targets, np.ones((1, 4))) == expected
    assert np.isfinite(explained_variance(targets, targets, np.zeros((1, 4))))


def test_spread_is_numpys_where_there_is_weight():
    action = drawn(4, 3, 2) * np.float32([1, 5])
    found = spread(with_nan(action), WEIGHT)
    np.testing.assert_allclose(found, action[REAL].std(axis=0).mean(), rtol=1e-5)


def test_signs_are_of_the_last_steps_and_leave_other_metrics_alone():
    value, target = drawn(4, 2), drawn(1, 4, 2)[0]
    metrics = {"value": value, "target": target, "q": value, "action": drawn(4, 2, 1)}
    variance = lambda: vitals.explained_variance(value, target, WEIGHT[:, 1:])
    both = lambda: (variance(), vitals.spread(drawn(4, 2, 1), WEIGHT[:, 1:]))
    found, expected = jax.jit(lambda: (vitals.signs(metrics, WEIGHT), both()))()
    assert metrics.keys() == {"q"}
    assert found.keys() == {"explained_variance", "action_spread"}
    assert (found["explained_variance"], found["action_spread"]) == expected
    alone = {"value": value, "action": value}
    assert vitals.signs(alone, WEIGHT) == {}
    assert alone.keys() == {"value", "action"}


def test_signs_of_another_shape_are_named():
    with pytest.raises(SettingError, match=r"got \(3,\) and \(3, 1\); squeeze"):
        vitals.signs({"value": drawn(4, 3), "target": drawn(4, 3, 1)}, WEIGHT)


MLP = networks.MLP((8,))
PLAIN = dict(normalise_observations=False, scale_rewards=False)
REPLAY = dict(backbone=MLP, capacity=64, min_size=16, batch_size=4)
RECURRENT = dict(REPLAY, backbone=networks.GRU(size=8), sequence_length=3, burn_in=2)
POLICY, VALUE = {"entropy"}, {"explained_variance"}
AGENTS = {
    "ppo": (ppo.Config(MLP, unroll_length=8, minibatches=2, **PLAIN), POLICY | VALUE | {"kl"}),
    "a2c": (a2c.Config(MLP, unroll_length=8), POLICY | VALUE),
    "impala": (impala.Config(MLP, unroll_length=8, **PLAIN), POLICY | VALUE | {"kl"}),
    "reinforce": (reinforce.Config(MLP, max_episode_length=8), POLICY | VALUE),
    "reinforce without values": (
        reinforce.Config(MLP, baseline="none", max_episode_length=8),
        POLICY,
    ),
    "dqn": (dqn.Config(**REPLAY), VALUE | {"replay_age"}),
    "dqn prioritised": (dqn.Config(prioritised=True, **REPLAY), VALUE | {"replay_age"}),
    "dqn recurrent": (dqn.Config(**RECURRENT), VALUE | {"replay_age"}),
    "sac": (sac.Config(**REPLAY), POLICY | VALUE | {"replay_age"}),
    "td3": (td3.Config(**REPLAY), VALUE | {"replay_age", "action_spread"}),
    "ddpg": (ddpg.Config(**REPLAY), VALUE | {"replay_age", "action_spread"}),
}


def made(config):
    continuous = isinstance(config, sac.Config | td3.Config)
    environment = environments.make("gym:Pendulum-v1" if continuous else "gym:CartPole-v1")
    spec = environments.spec(environment)
    environment.close()
    return config.make(spec), spec


SOON = {"ppo", "reinforce", "dqn", "sac", "td3"}


@pytest.mark.parametrize(
    ("config", "own"),
    [pytest.param(*x, marks=[pytest.mark.slow] * (k not in SOON)) for k, x in AGENTS.items()],
    ids=AGENTS,
)
def test_every_agent_logs_its_vital_signs(config, own):
    agent, spec = made(config)
    state = jax.eval_shape(lambda: initial.init(agent, spec, 0, 1))
    every = {"gradient_norm", "update_norm", "weight_0_fraction"}
    assert state.totals.metrics.keys() >= every | own
    known = {"kl", "entropy", "explained_variance", "action_spread", "replay_age"}
    assert state.totals.metrics.keys() & known == own


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [config for config, own in AGENTS.values() if own >= VALUE], ids=lambda x: ""
)
def test_values_that_are_0_everywhere_explain_nothing(config):
    # With values and targets the other way round it would be -1.
    agent, spec = made(config)
    row = initial.example_row(agent, spec, agent.learner.init(jax.random.key(0)).params)
    steps = max(agent.adder.schedule(1).block_length or 8, getattr(agent.adder, "length", 1))
    more = lambda steps: lambda x: jnp.zeros((4, steps, *x.shape), x.dtype)
    flags = jnp.zeros((4, steps + 1), bool)
    batch = Trajectory(
        observation=jax.tree.map(more(steps + 1), row.timestep.observation),
        action=jax.tree.map(more(steps), row.action),
        reward=jnp.asarray(drawn(4, steps)),
        discount=jnp.zeros((4, steps)),
        weight=jnp.ones((4, steps)),
        first=flags,
        last=flags[:, 1:],
        extras=jax.tree.map(more(steps), row.extras),
    )
    state = jax.tree.map(jnp.zeros_like, agent.learner.init(jax.random.key(0)))
    _, metrics = jax.jit(agent.learner.learn)(state, batch, jax.random.key(1))
    np.testing.assert_allclose(metrics["explained_variance"], 0, atol=1e-6)


@pytest.mark.slow
def test_the_weight_0_fraction_counts_steps_after_the_last():
    config = a2c.Config(MLP, unroll_length=8)
    *_, last = HostTrainer(num_envs=2).train(config, "jax:Catch", steps=200, report_period=1000)
    # Episodes of 9 steps and the one that restarts.
    np.testing.assert_allclose(last.metrics["weight_0_fraction"], 0.1, atol=0.01)
