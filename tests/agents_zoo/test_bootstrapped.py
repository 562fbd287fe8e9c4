"""Bootstrapped DQN: priors that never learn, masks, and who acts in an episode."""

import dataclasses
import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents_zoo import bootstrapped, dqn
from rlws import critics, environments, networks
from rlws.networks import GRU, MLP
from rlws.settings import SettingError
from rlws.testing import AgentConformance
from rlws.trainers import DeviceTrainer, HostTrainer
from tests.agents_zoo.trajectories import trajectory
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
SPEC = environments.DeepSea(3).spec()
CONFIG = bootstrapped.Config(
    MLP((4,), "relu"), members=3, share=0.5, capacity=200, min_size=20, batch_size=4, period=4
)
STEP = trajectory(
    observation=np.float32(np.eye(9).reshape(9, 3, 3)[[0, 4]]), reward=[1.0], action=[1]
)


@functools.cache
def agent():
    agent = CONFIG.make(SPEC)
    return agent, jax.jit(agent.learner.init)(KEY)


def masked(mask):
    return STEP._replace(extras={"mask": np.array([mask])})


def test_a_prior_is_added_and_never_learns():
    network = networks.compose(SPEC, MLP((4,)), q=networks.ActionReturns(2, critics.Quantiles(3)))
    both, x = networks.with_prior(network, 2.0), STEP.observation

    @jax.jit
    def ask(key):
        params = both.init(key)
        found = both.apply(params, x)
        parts = [network.apply(params[name], x).q for name in ("learned", "prior")]
        gradient = jax.grad(lambda params: both.apply(params, x).q.sum())(params)
        return found.q, found.q_returns.mean(), parts, gradient

    found, mean, (learned, prior), gradient = jax.device_get(ask(KEY))
    np.testing.assert_allclose(found, learned + 2 * prior, rtol=1e-5)
    np.testing.assert_allclose(mean, found, rtol=1e-5, atol=1e-6)
    assert not any(np.any(x) for x in jax.tree.leaves(gradient["prior"]))
    assert any(np.any(x) for x in jax.tree.leaves(gradient["learned"]))


def test_the_loss_is_the_mean_of_those_of_members_that_may_learn():
    many, state = agent()
    alone = dqn.DQN(many.learner.network, many.learner.optimizer, CONFIG)
    member = lambda tree, i: jax.tree.map(lambda x: x[i], tree)

    def losses(params, target):
        one = lambda p, t: alone.loss(p, STEP, KEY, state._replace(extra=t))[0]
        return jnp.stack([one(member(params, i), member(target, i)) for i in range(3)])

    each = np.asarray(jax.jit(losses)(state.params, state.extra))[:, 0]
    assert len(set(each.tolist())) == 3
    loss = lambda params, one: many.learner.loss(params, one, KEY, state)[0]
    found = jax.jit(loss)(state.params, masked([True, False, True]))
    np.testing.assert_allclose(found, [(each[0] + each[2]) / 3], rtol=1e-5)
    slope = jax.jit(jax.grad(lambda params, one: loss(params, one).sum()))
    moved = slope(state.params, masked([True, False, True]))["learned"]
    by_member = np.max([np.abs(x).reshape(3, -1).max(1) for x in jax.tree.leaves(moved)], axis=0)
    assert (by_member > 0).tolist() == [True, False, True]


def test_one_member_acts_in_an_episode_and_all_are_drawn():
    many, state = agent()
    act = jax.jit(many.actor.select_action)
    timestep = lambda kind: dm_env.TimeStep(
        np.int32(kind), np.float32(0), np.float32(1), STEP.observation[0]
    )

    # As trainers do, who name the axes that steps are counted along.
    def play(carry, key):
        first_key, next_key = jax.random.split(key)
        _, carry, _ = act(state.params, timestep(0), carry, first_key)
        began = carry[1]
        _, carry, extras = act(state.params, timestep(1), carry, next_key)
        return carry, (began, carry[1], extras["mask"])

    run = lambda carry, key: jax.lax.scan(play, carry, jax.random.split(key, 300))[1]
    named = jax.vmap(jax.vmap(run, axis_name="environments"), axis_name="workers")
    start = jax.tree.map(lambda x: np.asarray(x)[None, None], many.actor.initial_state())
    found = jax.jit(lambda key: named(start, key[None, None]))(KEY)
    began, later, masks = (np.asarray(x)[0, 0] for x in found)
    np.testing.assert_array_equal(began, later)
    np.testing.assert_allclose(np.bincount(began) / 300, [1 / 3] * 3, atol=0.1)
    np.testing.assert_allclose(masks.mean(axis=0), 0.5, atol=0.1)
    assert masks.shape == (300, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": GRU(MLP((4,)), 4), "sequence_length": 2}, "without a memory"),
        ({"critic": critics.Categorical()}, "a prior is added to returns that are numbers or"),
    ],
)
def test_what_cannot_have_a_prior_is_said(settings, message):
    def valued():
        learner = dataclasses.replace(CONFIG, **settings).make(SPEC).learner
        return learner.value(learner.init(KEY).params, STEP)

    with pytest.raises(SettingError, match=message):
        jax.eval_shape(valued)


@pytest.mark.slow
@pytest.mark.thorough
def test_bootstrapped_host_and_device_agree():
    one, other = (
        list(trainer(num_envs=2).train(CONFIG, "jax:DeepSea,size=3", steps=80))[-1]
        for trainer in (HostTrainer, DeviceTrainer)
    )
    assert one.updates == other.updates > 1
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
    jax.tree.map(close, one.params, other.params)


@pytest.mark.thorough
class TestBootstrapped(AgentConformance):
    config = bootstrapped.Config(members=3)
    only = PARTS
    test_host_and_device_agree = None  # above, of a smaller one
