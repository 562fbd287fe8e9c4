"""TD3 and DDPG: smoothing in action units, and the delayed policy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

from agents_zoo import ddpg, td3
from rlws.networks import MLP
from rlws.types import EnvironmentSpec
from tests.agents_zoo.test_sac import batch_of, constant, one_of

KEY = jax.random.key(0)
ACTIONS = specs.BoundedArray((2,), np.float32, [-2, 0], [2, 1])
SPEC = EnvironmentSpec(
    specs.Array((3,), np.float32), ACTIONS, specs.Array((), float), specs.Array((), float)
)
CONFIG = td3.Config(backbone=MLP((8,), "relu"), capacity=100, min_size=10, batch_size=4)
LEARNER = CONFIG.make(SPEC).learner


@functools.cache
def initial():
    return jax.device_get(jax.jit(LEARNER.init)(KEY))


@functools.cache
def metrics_of():
    """Returns the compiled metrics of a loss, of parameters, one trajectory and a state."""
    return jax.jit(lambda params, one, state: LEARNER.loss(params, one, KEY, state)[1])


def same(x, y):
    return jax.tree.all(jax.tree.map(np.array_equal, x, y))


def test_td3_noise_is_in_half_ranges_and_actions_stay_within_bounds():
    actor = CONFIG.make(SPEC).actor
    moved = actor.moved(jnp.array([0.0, 0.5]), jnp.array([0.25, 0.25]))
    np.testing.assert_allclose(moved, [0.5, 0.625], atol=1e-6)
    moved = actor.moved(jnp.array([1.9, 0.05]), jnp.array([0.5, -0.5]))
    np.testing.assert_allclose(moved, [2.0, 0.0], atol=1e-6)


def test_td3_clips_the_noise_of_targets():
    learner = (
        dataclasses.replace(CONFIG, target_noise=5.0, target_noise_clip=0.5).make(SPEC).learner
    )
    seen = []

    class Recording(td3.NoisyActor):
        def moved(self, action, noise):
            jax.debug.callback(lambda x: seen.append(np.asarray(x)), noise)
            return super().moved(action, noise)

    actor = Recording(
        **{f.name: getattr(learner.actor, f.name) for f in dataclasses.fields(Recording)}
    )
    learner, state = dataclasses.replace(learner, actor=actor), initial()
    loss = jax.jit(lambda key: learner.loss(state.params, one_of(), key, state)[0])
    for key in jax.random.split(KEY, 8):
        loss(key)
    jax.effects_barrier()
    assert len(seen) == 8
    assert (np.min(seen), np.max(seen)) == (-0.5, 0.5)
    assert (np.abs(seen) == 0.5).mean() > 0.6


@pytest.mark.parametrize("period", [1, 3])
def test_td3_policy_and_targets_move_with_every_period_th_update_of_the_critics(period):
    learner = dataclasses.replace(CONFIG, policy_period=period).make(SPEC).learner
    state, learn = initial(), jax.jit(learner.learn)
    for update in range(1, 7):
        after, _ = jax.device_get(learn(state, batch_of(), jax.random.key(update)))
        moves = update % period == 0
        assert same(after.params["policy"], state.params["policy"]) != moves
        assert same(after.extra, state.extra) != moves
        adam = lambda s: s.opt_state.inner_states["policy"]
        assert same(adam(after), adam(state)) != moves  # no momentum from gradients not taken
        assert not same(after.params["critic"], state.params["critic"])
        if moves:
            expected = jax.tree.map(
                lambda old, new: 0.995 * old + 0.005 * new, state.extra, after.params
            )
            close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7)
            jax.tree.map(close, after.extra, expected)
        state = after


def test_td3_target_is_the_smaller_target_value_and_stops_at_termination():
    state = initial()
    zeros = jax.tree.map(np.zeros_like, state.params["critic"])
    biased = {
        name: {**module, "value/linear": {**module["value/linear"], "b": np.float32([value])}}
        for (name, module), value in zip(zeros.items(), (5.0, 3.0), strict=True)
    }
    params = {**state.params, "critic": zeros}
    state = state._replace(extra={**state.extra, "critic": biased})
    for discount, target in ((1.0, 1 + 0.99 * 3), (0.0, 1.0)):
        metrics = metrics_of()(params, one_of(discount=discount), state)
        np.testing.assert_allclose(metrics["critic_loss"], target**2, rtol=1e-5)


def test_td3_values_are_those_of_the_smaller_critic():
    params = initial().params
    params = {**params, "critic": constant(params["critic"], 5.0, 3.0)}
    np.testing.assert_allclose(jax.jit(LEARNER.value)(params, one_of()), [3.0, 3.0])


def test_td3_losses_reach_their_own_parameters_only():
    state, one = initial(), one_of()
    for name, owner in (("critic_loss", "critic"), ("policy_loss", "policy")):
        total = lambda p, name=name: metrics_of()(p, one, state)[name].sum()
        grads = jax.device_get(jax.jit(jax.grad(total))(state.params))
        moves = lambda x: any(np.any(leaf) for leaf in jax.tree.leaves(x))
        assert {k for k, grad in grads.items() if moves(grad)} == {owner}


def test_td3_minimises_the_sum_of_its_losses():
    state, one = initial(), one_of()
    loss, metrics = jax.jit(LEARNER.loss)(state.params, one, KEY, state)
    np.testing.assert_allclose(loss, metrics["critic_loss"] + metrics["policy_loss"], rtol=1e-5)


def test_ddpg_is_td3_with_one_critic_and_neither_delay_nor_smoothing():
    learner = ddpg.Config(backbone=MLP((8,))).make(SPEC).learner
    assert len(jax.eval_shape(learner.init_params, KEY)["critic"]) == 1
    assert (learner.config.policy_period, learner.config.target_noise) == (1, 0.0)
