"""CrossQ: both pairs in one pass, no target critics, and a policy that waits for its turn."""

import functools

import jax
import numpy as np
import pytest

from agents_zoo import crossq
from rlws.networks import MLP, BatchNorm
from rlws.testing import AgentConformance
from tests.agents_zoo.test_sac import SPEC, batch_of
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
LINEAR = MLP((), batch_norm=BatchNorm(rate=0.25))
CONFIG = crossq.Config(
    backbone=LINEAR, critic_backbone=LINEAR, capacity=100, min_size=10, batch_size=4
)
LEARNER = CONFIG.make(SPEC).learner
NORM = "backbone/batch_norm"


@functools.cache
def initial():
    """Returns a state whose policy does the highest, for sure, for hardly any entropy."""
    state = jax.device_get(jax.jit(LEARNER.init)(KEY))
    policy = dict(state.params["policy"])
    means = policy["policy/linear"]
    policy["policy/linear"] = {"w": 0 * means["w"], "b": np.full_like(means["b"], 20.0)}
    params = {**state.params, "policy": policy, "log_temperature": np.float32(-30)}
    return state._replace(params=params)


def pairs(batch):
    """Returns what critics see of both pairs, [B, 5] each, actions in [-1, 1]."""
    action = (batch.action[:, 0] - np.float32([0, 0.5])) / np.float32([2, 0.5])
    following = np.ones_like(action)
    join = lambda i, x: np.concatenate([batch.observation[:, i], x], axis=1)
    return join(0, action), join(1, following)


def test_crossq_is_sac_without_targets():
    config = crossq.Config()
    assert (config.target_rate, config.policy_period, config.critics) == (None, 3, 2)
    assert config.backbone.batch_norm == config.critic_backbone.batch_norm == BatchNorm()
    assert initial().extra == ()


@pytest.mark.parametrize("ends", [0, 2])
def test_crossq_critics_see_both_pairs_as_one_batch(ends):
    """Of those trajectories that end, what follows is worth nothing and is not counted."""
    batch = batch_of()._replace(discount=np.float32([[0]] * ends + [[1]] * (4 - ends)))
    state = initial()
    now, following = pairs(batch)
    both = np.concatenate([now, following[ends:]])
    mean, deviation = both.mean(axis=0), np.sqrt(both.var(axis=0) + 1e-3)
    heads = [x["value/linear"] for x in state.params["critic"].values()]
    say = lambda x: np.stack([((x - mean) / deviation @ h["w"] + h["b"])[:, 0] for h in heads])
    target = 1 + 0.99 * batch.discount[:, 0] * say(following).min(axis=0)
    error = say(now) - target

    gradient = jax.jit(jax.grad(LEARNER.batch_loss, has_aux=True))
    grads, metrics = jax.device_get(gradient(state.params, batch, KEY, state))
    np.testing.assert_allclose(metrics["critic_loss"], (error**2 / 2).sum(0).mean(), rtol=1e-4)
    normal = (now - mean) / deviation
    for i, (name, head) in enumerate(zip("01", heads, strict=True)):
        found, of = grads["critic"][name], error[i][:, None]
        np.testing.assert_allclose(
            found["value/linear"]["w"][:, 0], (of * normal).mean(0), rtol=1e-3, atol=1e-5
        )
        scale = (of * normal).mean(0) * head["w"][:, 0]
        np.testing.assert_allclose(found[NORM]["scale"], scale, rtol=1e-3, atol=1e-5)
        moved = metrics["statistics"]["critic"][name][NORM]
        np.testing.assert_allclose(moved["running_mean"], 0.25 * mean, rtol=1e-4, atol=1e-6)
        expected = 0.75 + 0.25 * both.var(axis=0)
        np.testing.assert_allclose(moved["running_variance"], expected, rtol=1e-4)


def test_crossq_policy_learns_in_every_third_update():
    """And its statistics move then; those of critics do in each."""
    batch = batch_of()
    learn = jax.jit(LEARNER.learn)
    state = jax.device_get(jax.jit(LEARNER.init)(KEY))
    means = batch.observation[:, 0].mean(axis=0)
    for update, turn in ((1, False), (2, False), (3, True)):
        after, _ = jax.device_get(learn(state, batch, KEY))
        same = jax.tree.map(np.array_equal, after.params, state.params)
        for name, moves in (("policy", turn), ("log_temperature", turn), ("critic", True)):
            assert {*jax.tree.leaves(same[name])} == {not moves}
        norm = after.params["policy"][NORM]
        np.testing.assert_allclose(norm["running_mean"], 0.25 * turn * means, atol=1e-6)
        assert norm["running_updates"] == turn
        assert after.params["critic"]["0"][NORM]["running_updates"] == update
        state = after


# Its learner is that of SAC, which the doctor looks at as a whole.
@pytest.mark.thorough
class TestCrossQ(AgentConformance):
    config = crossq.Config()
    only = PARTS
