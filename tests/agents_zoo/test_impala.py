"""IMPALA: V-trace by hand and by a slow reference, its limits, and agreement of trainers."""

import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents_zoo import a2c, impala
from rlws import environments
from rlws.learner import LearnerState
from rlws.networks import MLP, Categorical, Network
from rlws.trainers import DeviceTrainer, HostTrainer, core, initial
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)
PLAIN = {"normalise_observations": False, "scale_rewards": False}


class Outputs(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


# Observation i: value params["v"][i], logits params["l"][i].
TABLE = Network(
    lambda key: {},
    lambda params, i: Outputs(value=params["v"][i], policy=Categorical(params["l"][i])),
)
HALF = {"v": np.float32([1, 2, 3]), "l": np.zeros((3, 2), np.float32)}  # both actions alike


def acted(steps, ratio):
    """Returns steps whose actor had probabilities such that pi / mu is `ratio`, pi being 1/2."""
    return steps._replace(extras={"log_prob": np.float32(np.log(0.5) - np.log(ratio))})


@functools.cache
def compiled(config):
    """Returns the compiled loss of parameters and steps, and its gradient."""
    learner_class = a2c.A2C if isinstance(config, a2c.Config) else impala.Impala
    learner = learner_class(TABLE, optax.sgd(1.0), config)

    def total(params, steps):
        found = learner.loss(params, steps, KEY, LearnerState(params, ()))
        return found[0].sum(), found

    def both(params, steps):
        (_, found), grads = jax.value_and_grad(total, has_aux=True)(params, steps)
        return found, grads

    return jax.jit(both)


def loss(params, steps, module=impala, **settings):
    """Returns the loss of each step, and metrics."""
    return compiled(module.Config(**settings))(params, steps)[0]


# Ratios 1/2 and 2 (clipped to 1), gamma 1/2, lambda 1: TD errors are 1 + V'/2 - V = 1 and 1/2.
STEPS = acted(trajectory(reward=[1, 1], action=[0, 1]), [0.5, 2.0])
TARGETS = [1 + 0.5 * 1 + 0.5 * 0.5 * 0.5, 2 + 0.5]  # 1.625, 2.5
ADVANTAGE = [0.5 * (1 + 0.5 * 2.5 - 1), 1 * (1 + 0.5 * 3 - 2)]  # 0.625, 0.5
BY_HAND = {"discount": 0.5, "trace": 1.0, "value_cost": 0.5, "entropy_cost": 0.1}


def test_impala_loss_by_hand():
    found, metrics = loss(HALF, STEPS, **BY_HAND)
    error, advantage = np.array([0.625, 0.5]), np.array(ADVANTAGE)
    expected = np.log(2) * advantage + 0.5 * error**2 / 2 - 0.1 * np.log(2)
    np.testing.assert_allclose(metrics["target"], TARGETS, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(metrics["ratio_clipped"], [0, 1])
    np.testing.assert_allclose(metrics["kl"], [0.5 - 1 - np.log(0.5), 2 - 1 - np.log(2)], rtol=1e-5)


def test_impala_gradient_by_hand():
    """Values move towards constant targets; ratios are constants, too."""
    grads = compiled(impala.Config(**BY_HAND))(HALF, STEPS)[1]
    np.testing.assert_allclose(grads["v"], [-0.5 * 0.625, -0.5 * 0.5, 0], rtol=1e-6)
    towards = np.array([-1, 1])  # towards the action taken: 0, 1
    np.testing.assert_allclose(grads["l"][:2, 0], towards * ADVANTAGE / 2, rtol=1e-6)
    np.testing.assert_array_equal(grads["l"][2], 0)


@pytest.mark.parametrize(
    ("limit", "targets", "advantage"),
    [
        # The traces c are cut at 1 whatever the limit is; rho_2 is 2 where that is above it.
        (10.0, [1 + 0.5 + 0.5 * 0.5 * 2 * 0.5, 2 + 2 * 0.5], [0.75, 1.0]),
        (0.25, [1 + 0.25 + 0.5 * 0.5 * 0.25 * 0.5, 2 + 0.25 * 0.5], [0.265625, 0.125]),
    ],
)
def test_impala_clips_ratios_at_their_limit(limit, targets, advantage):
    _, metrics = loss(HALF, STEPS, **BY_HAND, max_ratio=limit)
    np.testing.assert_allclose(metrics["target"], targets, rtol=1e-6)
    np.testing.assert_allclose(metrics["policy_loss"], np.log(2) * np.array(advantage), rtol=1e-6)


def drawn(steps, seed):
    """Returns parameters and random steps, with episodes that end in either way."""
    rng = np.random.default_rng(seed)
    last = rng.random(steps) < 0.3
    ended = last & (np.cumsum(last) % 2 == 0)  # every other one terminates
    found = trajectory(
        reward=rng.normal(size=steps),
        discount=~ended,
        last=last,
        action=rng.integers(0, 3, steps).astype(np.int32),
    )
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
    params = {"v": normal(steps + 1), "l": normal(steps + 1, 3)}
    mu = np.log(rng.uniform(0.1, 0.9, steps)).astype(np.float32)
    return params, found._replace(extras={"log_prob": mu})


def log_probs(logits, action):
    """Returns the logarithms of a softmax at some actions, float64."""
    chosen = np.take_along_axis(np.float64(logits), action[:, None], axis=1)[:, 0]
    return chosen - np.log(np.exp(np.float64(logits)).sum(axis=1))


def slow_vtrace(v, r, discount, ratio, trace, limit):
    """Returns targets and advantages: equation 1 and section 4.2 of the paper, sum by sum."""
    steps = len(r)
    rho, c = np.minimum(limit, ratio), np.minimum(1.0, ratio) * trace
    delta = rho * (r + discount * v[1:] - v[:-1])
    targets = v.copy()
    for s in range(steps):
        for t in range(s, steps):
            targets[s] += np.prod((discount * c)[s:t]) * delta[t]
    onward = trace * targets[1:] + (1 - trace) * v[1:]
    return targets[:-1], rho * (r + discount * onward - v[:-1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.7, 1.0, 2.0])
def test_impala_is_vtrace_off_policy(seed, limit):
    params, steps = drawn(40, seed)
    assert {0.0, 1.0} == set(np.asarray(steps.discount[steps.last]).tolist())
    settings = {"discount": 0.9, "trace": 0.8, "max_ratio": limit, "entropy_cost": 0.0}
    _, metrics = loss(params, steps, **settings)
    v, r, discount, last = (
        np.float64(x) for x in (params["v"], steps.reward, steps.discount, steps.last)
    )
    log_pi = log_probs(params["l"][:-1], steps.action)
    ratio = np.exp(log_pi - np.float64(steps.extras["log_prob"]))
    targets, advantage = slow_vtrace(v, r, 0.9 * discount, ratio, 0.8 * (1 - last), limit)
    assert (ratio > limit).any()
    assert (ratio < limit).any()
    np.testing.assert_allclose(metrics["target"], targets, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], -log_pi * advantage, rtol=1e-4, atol=1e-5)


def test_impala_on_policy_is_a2c():
    params, steps = drawn(40, 7)
    log_prob = np.float32(log_probs(params["l"][:-1], steps.action))
    steps = steps._replace(extras={"log_prob": log_prob})
    same = {"discount": 0.9, "value_cost": 0.7, "entropy_cost": 0.03}
    ours, our_grads = compiled(impala.Config(trace=0.8, **same))(params, steps)
    theirs, their_grads = compiled(a2c.Config(gae_lambda=0.8, **same))(params, steps)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, our_grads, their_grads)


@pytest.mark.parametrize(("discount", "target"), [(1.0, 1 + 0.5 * 2), (0.0, 1.0)])
def test_impala_bootstraps_a_truncated_episode_from_its_last_observation(discount, target):
    steps = trajectory(reward=[1, 7], discount=[discount, 1], last=[True, False])
    _, metrics = loss(HALF, acted(steps, [1.0, 1.0]), **BY_HAND)
    np.testing.assert_allclose(metrics["target"][0], target, rtol=1e-6)


def test_impala_actor_records_the_log_prob_of_its_action():
    agent = impala.Config(MLP((8,)), **PLAIN).make(environments.make("jax:CartPole-v1").spec())
    x = np.ones((2, 4), np.float32)
    timestep = dm_env.TimeStep(np.ones(2, int), np.zeros(2), np.ones(2), x)
    state = initial.initial_actor_state(agent.actor, 2)

    @jax.jit
    def recorded_and_expected():
        params = agent.learner.init(KEY).params
        arguments = params, jnp.zeros(2, jnp.uint32), 0, timestep, state
        action, _, extras = core.act(agent.actor, *arguments)
        return extras["log_prob"], agent.actor.network.apply(params, x).policy.log_prob(action)

    np.testing.assert_allclose(*recorded_and_expected(), atol=1e-6)


@pytest.mark.slow
def test_impala_host_and_device_agree():
    config, last = impala.Config(MLP((16,)), unroll_length=5), []
    for trainer in (HostTrainer(num_envs=3), DeviceTrainer(num_envs=3)):
        *_, progress = trainer.train(config, "jax:CartPole-v1", seed=1, steps=300)
        last.append((progress.updates, jax.device_get(progress.params)))
    assert last[0][0] == last[1][0] > 15
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-4),
        last[0][1],
        last[1][1],
    )
