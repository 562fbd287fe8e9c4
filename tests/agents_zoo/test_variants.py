"""D4PG, TQC, REDQ and DroQ: TD3 and SAC with other critics, and more of them."""

import jax
import numpy as np
import pytest

from agents_zoo import d4pg, droq, redq, tqc
from rlws import critics
from rlws.networks import MLP
from rlws.testing import AgentConformance
from tests.agents_zoo.test_sac import SPEC, one_of
from tests.diagnose.healthy import PARTS

KEY = jax.random.key(0)
SMALL = dict(backbone=MLP((8,), "relu"), capacity=100, min_size=10, batch_size=4)


def said(tree, numbers):
    """Returns critics that say the same of everything: weights of 0, these biases last."""
    zeros = jax.tree.map(np.zeros_like, tree)
    return {
        name: {**module, "value/linear": {**module["value/linear"], "b": np.float32(numbers)}}
        for name, module in zeros.items()
    }


@pytest.mark.parametrize(("discount", "target"), [(1.0, [0, 0.25, 0.75]), (0.0, [0, 0.75, 0.25])])
def test_d4pg_loss_is_the_cross_entropy_of_what_follows(discount, target):
    """A return of 1 for sure, half discounted and a quarter more, on atoms -1, 0 and 1."""
    critic = critics.Categorical(3, -1.0, 1.0)
    learner = d4pg.Config(**SMALL, critic=critic, discount=0.5).make(SPEC).learner
    state = jax.jit(learner.init)(KEY)
    logits = np.array([0.3, -0.2, 0.5])
    params = {**state.params, "critic": said(state.params["critic"], logits)}
    extra = {**state.extra, "critic": said(state.params["critic"], [-99, -99, 0])}
    one = one_of(discount=discount)._replace(reward=np.float32([0.25]))
    loss = lambda params, state: learner.loss(params, one, KEY, state)[1]
    metrics = jax.jit(loss)(params, state._replace(extra=extra))
    log = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(metrics["critic_loss"], -log @ target, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], -np.exp(log) @ [-1, 0, 1], rtol=1e-5)


def test_tqc_targets_leave_out_the_highest_of_all_quantiles():
    config = tqc.Config(**SMALL, critic=critics.Quantiles(3), critics=2, drop=1, temperature=1e-9)
    learner = config.make(SPEC).learner
    state = jax.jit(learner.init)(KEY)
    low, high = (said({"0": state.extra["0"]}, x)["0"] for x in ([1, 2, 3], [4, 5, 9]))
    one = one_of()
    loss = lambda params, state: learner.loss(params, one, KEY, state)[1]
    params = {**state.params, "critic": {"0": low, "1": high}}
    metrics = jax.jit(loss)(params, state._replace(extra={"0": low, "1": high}))
    np.testing.assert_allclose(metrics["target"], 1 + 0.99 * np.mean([1, 2, 3, 4]), rtol=1e-5)
    np.testing.assert_allclose(metrics["policy_loss"], -np.mean([2, 6]), rtol=1e-5)


@pytest.mark.slow
def test_redq_targets_are_the_lower_of_any_two_critics():
    config = redq.Config(**SMALL, critics=3, temperature=1e-9)
    agent = config.make(SPEC)
    assert (agent.adder.updates, len(agent.learner.init(KEY).extra)) == (20, 3)
    state = jax.jit(agent.learner.init)(KEY)
    one = {"0": state.extra["0"]}
    critic = {str(i): said(one, [i])["0"] for i in range(3)}
    params = {**state.params, "critic": critic}
    loss = lambda key: agent.learner.loss(params, one_of(), key, state._replace(extra=critic))[1]
    metrics = jax.jit(jax.vmap(loss))(jax.random.split(KEY, 60))
    lowest, counts = np.unique(np.round((metrics["target"] - 1) / 0.99, 4), return_counts=True)
    np.testing.assert_allclose(lowest, [0, 1], atol=1e-3)  # never 2
    np.testing.assert_allclose(counts / 60, [2 / 3, 1 / 3], atol=0.2)
    np.testing.assert_allclose(metrics["policy_loss"], -1.0, atol=1e-4)


def test_droq_critics_drop_units_and_its_policy_does_not():
    backbone = MLP((64,), "relu", layer_norm=True, dropout=0.5)
    learner = droq.Config(**SMALL, critic_backbone=backbone).make(SPEC).learner
    assert learner.critic.random
    assert not learner.network.random
    names = lambda params: " ".join(
        jax.tree_util.keystr(k) for k, _ in jax.tree.leaves_with_path(params)
    )
    params = jax.jit(learner.init_params)(KEY)
    assert "layer_norm" in names(params["critic"])
    assert "layer_norm" not in names(params["policy"])
    one = one_of()
    pair = one.without_final().observation, one.action
    says = jax.jit(lambda *key: learner.critic(params["critic"], pair, *key).value)
    first, second, without = says(KEY), says(jax.random.key(1)), says()
    assert np.all(first != second)
    assert np.all(first != without)


def test_droq_is_redq_with_two_critics():
    config = droq.Config()
    assert (config.critics, config.subset, config.updates) == (2, 2, 20)
    assert config.critic_backbone.dropout > 0
    assert config.critic_backbone.layer_norm


# Their learner is that of TD3 and of SAC, which the doctor looks at as a whole.
@pytest.mark.thorough
class TestD4PG(AgentConformance):
    config = d4pg.Config()
    only = PARTS
    test_host_and_device_agree = None  # it is TD3, with other settings


@pytest.mark.thorough
class TestTQC(AgentConformance):
    config = tqc.Config()
    only = PARTS
    test_host_and_device_agree = None  # it is SAC, with other settings
