"""SAC: the squashed policy, its temperature and who gets which gradient."""

import dataclasses
import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs
from scipy import integrate

from agents_zoo import discrete_sac, mpo, sac, td3
from rlws.networks import GRU, MLP, TanhNormal
from rlws.settings import SettingError
from rlws.trainers import core
from rlws.trainers.initial import initial_actor_state
from rlws.types import EnvironmentSpec
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)
ACTIONS = specs.BoundedArray((2,), np.float32, [-2, 0], [2, 1])
SPEC = EnvironmentSpec(
    specs.Array((3,), np.float32), ACTIONS, specs.Array((), float), specs.Array((), float)
)
CONFIG = sac.Config(backbone=MLP((8,), "relu"), capacity=100, min_size=10, batch_size=4)
LEARNER = CONFIG.make(SPEC).learner


@functools.cache
def initial():
    return jax.jit(LEARNER.init)(KEY)


@functools.cache
def metrics_of():
    """Returns the compiled metrics of a loss, of parameters, one trajectory and a state."""
    return jax.jit(lambda params, one, state: LEARNER.loss(params, one, KEY, state)[1])


def policy(mean=0.0, std=1.0, half_range=2.0):
    one = lambda x: jnp.array([x], jnp.float32)
    return TanhNormal(one(mean), jnp.log(one(std)), one(0.0), one(half_range))


def test_tanh_normal_log_prob_by_hand():
    found = policy().log_prob(2 * jnp.tanh(jnp.array([2.0])))
    np.testing.assert_allclose(found, -0.962080, atol=1e-4)


def test_tanh_normal_log_prob_of_a_saturated_sample_is_exact():
    """At u = 20 tanh(u) is 1 in float32: only u itself knows."""
    action, log_prob = policy(mean=20.0, std=1e-6, half_range=1.0).sample_and_log_prob(KEY)
    assert action == 1.0
    noise = jax.random.normal(KEY, (1,))
    normal = -0.5 * (noise**2 + np.log(2 * np.pi)) - np.log(1e-6)
    slope = 2 * (np.log(2) - 20 - np.log1p(np.exp(-40.0)))
    np.testing.assert_allclose(log_prob, normal[0] - slope, rtol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.7])
def test_tanh_normal_integrates_to_one(mean):
    log_prob = jax.jit(lambda a: policy(mean).log_prob(a))
    density = lambda a: float(np.exp(log_prob(np.float32([a]))))
    total, _ = integrate.quad(density, -2, 2, limit=100, epsabs=1e-4)
    assert total == pytest.approx(1.0, abs=2e-3)


def test_tanh_normal_samples_have_the_log_prob_they_come_with():
    distribution = policy(0.3, 0.5)

    @jax.jit
    def both(key):
        action, log_prob = distribution.sample_and_log_prob(key)
        return log_prob, distribution.log_prob(action)

    for key in jax.random.split(KEY, 5):
        np.testing.assert_allclose(*both(key), atol=1e-4)
    assert policy(10.0).mode() > 1.98


def batch_of(count=4, discount=1.0):
    rng = np.random.default_rng(0)
    one = lambda: trajectory(
        observation=rng.normal(size=(2, 3)).astype(np.float32),
        reward=[1.0],
        action=rng.uniform([-2, 0], [2, 1], (1, 2)).astype(np.float32),
        discount=[discount],
    )
    return jax.tree.map(lambda *x: np.stack(x), *[one() for _ in range(count)])


def one_of(**fields):
    return jax.tree.map(lambda x: x[0], batch_of(**fields))


@functools.cache
def learn():
    """Returns a compiled update, of the entropy that is wanted, a state and a batch."""

    def update(target_entropy, state, batch):
        config = dataclasses.replace(CONFIG, target_entropy=target_entropy)
        return config.make(SPEC).learner.learn(state, batch, KEY)

    return jax.jit(update)


@pytest.mark.parametrize(("entropy", "rises"), [(3.0, True), (-3.0, False)])
def test_sac_temperature_follows_the_entropy(entropy, rises):
    """Wanting more entropy than there is raises the temperature."""
    current = 0.0  # about; a fresh policy's
    state = initial()
    after, metrics = learn()(current + 10 * entropy, state, batch_of())
    assert (after.params["log_temperature"] > state.params["log_temperature"]) == rises
    assert metrics["temperature"] > 0


def test_sac_losses_reach_their_own_parameters_only():
    state, one = initial(), one_of()

    def part(name):
        total = lambda params: metrics_of()(params, one, state)[name].sum()
        grads = jax.device_get(jax.jit(jax.grad(total))(state.params))
        moves = lambda x: any(np.any(leaf) for leaf in jax.tree.leaves(x))
        return {name for name, grad in grads.items() if moves(grad)}

    assert part("critic_loss") == {"critic"}
    assert part("policy_loss") == {"policy"}


def test_sac_temperature_teaches_the_policy_nothing():
    state, one = initial(), one_of()
    params = {**state.params, "log_temperature": np.float32(1)}  # where its loss is not 0
    whole = lambda params: LEARNER.loss(params, one, KEY, state)[0].sum()
    own = lambda params: LEARNER.loss(params, one, KEY, state)[1]["policy_loss"].sum()
    found, expected = (jax.device_get(jax.jit(jax.grad(f))(params)) for f in (whole, own))
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, found["policy"], expected["policy"])


def test_sac_minimises_the_sum_of_its_losses():
    """At a temperature of 1 that of the temperature, which is in its logarithm, is 0."""
    state, one = initial(), one_of()
    params = {**state.params, "log_temperature": np.float32(0)}
    loss, metrics = jax.jit(LEARNER.loss)(params, one, KEY, state)
    np.testing.assert_allclose(loss, metrics["critic_loss"] + metrics["policy_loss"], rtol=1e-5)


def constant(critics, *values):
    """Returns critics that say these values: zero weights, those biases in the last layer."""
    zeros = jax.tree.map(np.zeros_like, critics)
    return {
        name: {**module, "value/linear": {**module["value/linear"], "b": np.float32([value])}}
        for (name, module), value in zip(zeros.items(), values, strict=True)
    }


def test_sac_policy_follows_the_smaller_value_and_its_entropy():
    state = initial()
    for temperature in (1e-9, 2.0):
        critic = constant(state.extra, 5.0, 3.0)
        log_temperature = np.log(np.float32(temperature))
        params = {**state.params, "critic": critic, "log_temperature": log_temperature}
        metrics = metrics_of()(params, one_of(), state)
        expected = -3.0 - temperature * metrics["entropy"]
        np.testing.assert_allclose(metrics["policy_loss"], expected, rtol=1e-5)
    assert np.abs(metrics["entropy"]).min() > 0.01


def test_sac_target_is_the_smaller_target_value_and_stops_at_termination():
    state = initial()
    zeros = jax.tree.map(np.zeros_like, state.extra)
    params = {**state.params, "critic": zeros, "log_temperature": np.float32(-1e9)}
    state = state._replace(extra=constant(zeros, 5.0, 3.0), params=params)
    for discount, target in ((1.0, 1 + 0.99 * 3), (0.0, 1.0)):
        metrics = metrics_of()(params, one_of(discount=discount), state)
        np.testing.assert_allclose(metrics["critic_loss"], target**2, rtol=1e-5)  # two of half


def test_sac_targets_move_by_their_rate():
    state = initial()
    after, _ = jax.device_get(learn()(-2.0, state, batch_of()))
    expected = jax.tree.map(
        lambda old, new: 0.995 * old + 0.005 * new, state.extra, after.params["critic"]
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7), after.extra, expected)


@pytest.mark.slow
def test_sac_acts_uniformly_first_and_by_its_policy_later():
    agent = sac.Config(backbone=MLP((8,)), random_steps=500).make(SPEC)
    params = jax.jit(agent.learner.init_params)(KEY)
    params["policy"] = jax.tree.map(jnp.zeros_like, params["policy"])
    params["policy"]["policy/linear"]["b"] = jnp.full(2, 9.0)  # means far at the upper bound
    state = initial_actor_state(agent.actor, 1)
    kind = jnp.full(1, dm_env.StepType.MID)
    timestep = dm_env.TimeStep(kind, jnp.zeros(1), jnp.ones(1), jnp.zeros((1, 3)))

    def step(state, t):
        arguments = params, jnp.zeros(2, jnp.uint32), t, timestep, state
        action, state, _ = core.act(agent.actor, *arguments)
        return state, action[0]

    actions = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(600))[1])(state)
    first, later = np.asarray(actions[:500]), np.asarray(actions[500:])
    np.testing.assert_allclose(first.mean(axis=0), [0, 0.5], atol=0.15)
    np.testing.assert_allclose(first.min(axis=0), [-2, 0], atol=0.05)
    np.testing.assert_allclose(first.max(axis=0), [2, 1], atol=0.05)
    assert (later > [1.5, 0.8]).mean() > 0.95


def test_sac_needs_bounded_continuous_actions():
    for actions in (specs.DiscreteArray(3), specs.Array((2,), np.float32)):
        with pytest.raises(SettingError):
            CONFIG.make(SPEC._replace(actions=actions))


def test_tanh_normal_log_prob_far_out_is_exact():
    """At u = 20 of a standard normal; with log(1 - tanh(u)^2 + 1e-6) it would be -187.10."""
    noise = float(jax.random.normal(KEY, (1,))[0])
    distribution = policy(mean=20.0 - noise, std=1.0, half_range=1.0)  # so that u is 20
    _, log_prob = distribution.sample_and_log_prob(KEY)
    of_u = 0.5 * noise**2 - 0.5 * 20.0**2  # as if the mean were 0
    assert float(log_prob) + of_u == pytest.approx(-162.305, abs=2e-3)


def test_sac_target_counts_the_entropy_of_what_follows():
    """Haarnoja et al., 2018: min Q - alpha * log pi, of an action of the policy of now."""
    state = initial()
    zeros = jax.tree.map(np.zeros_like, state.extra)

    def beyond(temperature):
        log_temperature = np.log(np.float32(temperature))
        params = {**state.params, "critic": zeros, "log_temperature": log_temperature}
        metrics = metrics_of()(params, one_of(), state._replace(extra=zeros, params=params))
        return float(np.sqrt(metrics["critic_loss"].squeeze()) - 1.0)  # two of half

    assert beyond(1e-9) == pytest.approx(0.0, abs=1e-6)
    # Not more likely than anything could be, nor as unlikely as nothing the policy does.
    assert 0.0 < beyond(0.2) < 0.2 * 0.99 * 10
    assert beyond(0.4) == pytest.approx(2 * beyond(0.2), rel=1e-4)


@pytest.mark.parametrize("agent", [sac, td3, mpo, discrete_sac])
def test_no_ensemble_of_critics_has_a_memory(agent):
    """Whose state nobody would keep: it would silently forget."""
    spec = SPEC._replace(actions=specs.DiscreteArray(2)) if agent is discrete_sac else SPEC
    with pytest.raises(SettingError, match="without a memory, got a recurrent backbone"):
        agent.Config(backbone=GRU(MLP((8,)), 8)).make(spec)
