"""Terms: values and gradients worked by hand, alone and beside the losses of any agent."""

import dataclasses
import functools

import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_env import StepType, specs

from agents_zoo import a2c, ddpg, dqn, impala, ppo, reinforce, sac, td3
from rlws import networks
from rlws.learner import Learner
from rlws.networks import Backbone, Network
from rlws.normalise import STATISTICS, ObservationStatistics
from rlws.settings import SettingError
from rlws.terms import RND, Entropy, L2Init
from rlws.terms.rnd import PREDICTOR
from rlws.trainers import core, initial
from rlws.types import EnvironmentSpec, Row, Trajectory

KEY = jax.random.key(0)
SGD = optax.sgd(1.0)
VECTOR = specs.Array((2,), np.float32)


def spec_of(observations=VECTOR, actions=None):
    return EnvironmentSpec(observations, actions or specs.DiscreteArray(2), max_episode_steps=6)


class Still(Learner):
    """Has no loss of its own."""

    def loss(self, params, trajectory, key, state):
        return jnp.float32(0), {}


class Identity(Backbone):
    def __call__(self, observation):
        return observation


def batch_of(observation, weight, reward=None):
    """Returns one trajectory as a batch."""
    steps, no = len(weight), np.zeros(len(weight), bool)
    batch = Trajectory(
        observation=np.asarray(observation),
        action=np.zeros(steps, np.int32),
        reward=np.float32(np.zeros(steps) if reward is None else reward),
        discount=np.ones(steps, np.float32),
        weight=np.float32(weight),
        first=np.append(no, False),
        last=no,
        extras={},
    )
    return jax.tree.map(lambda x: x[None], batch)


def compute(learner, state, batch):
    """Returns the loss, the metrics and the gradients of all parameters."""
    value = jax.jit(jax.value_and_grad(learner.batch_loss, has_aux=True))
    (loss, metrics), grads = value(state.params, batch, KEY, state)
    return jax.device_get((loss, metrics, grads))


def approx(expected):
    return pytest.approx(expected, rel=1e-5, abs=1e-6)


# --- L2Init.

PARAMS = {"a": {"w": np.float32([1.0, 2])}, "b": {"w": np.float32(7.0)}}
MOVED = {"a": {"w": np.float32([4.0, 6])}, "b": {"w": np.float32(7.0)}}


def plain(*terms, observations=VECTOR):
    network = Network(lambda key: PARAMS, lambda params, observation: observation)
    return Still(network, SGD).with_terms(*terms)


def moved(state):
    return state._replace(params=state.params | MOVED)


@pytest.mark.parametrize("weight", [[1, 1, 1], [1, 0, 0.5]])
def test_l2_init_equals_hand_worked_numbers(weight):
    learner = plain(L2Init(cost=0.1))
    state = jax.jit(learner.init)(KEY)
    batch = batch_of(np.zeros((4, 2), np.float32), weight)
    loss, metrics, _ = compute(learner, state, batch)
    assert loss == metrics["l2_init_loss"] == metrics["l2_init_distance"] == 0
    loss, metrics, grads = compute(learner, moved(state), batch)
    assert metrics == approx({"loss": 0, "l2_init_loss": 2.5, "l2_init_distance": 5})
    assert loss == approx(2.5)
    np.testing.assert_allclose(grads["a"]["w"], [0.6, 0.8], rtol=1e-6)
    assert grads["b"]["w"] == 0


def test_l2_init_pulls_parameters_back_to_where_they_began():
    learner = plain(L2Init(cost=0.1))
    state = moved(jax.jit(learner.init)(KEY))
    batch = batch_of(np.zeros((4, 2), np.float32), [1, 1, 1])
    learn = jax.jit(learner.learn)
    for expected in ([3.4, 5.2], [2.92, 4.56]):  # nearer by a factor of 0.8 each time
        state, _ = learn(state, batch, KEY)
        np.testing.assert_allclose(state.params["a"]["w"], expected, rtol=1e-6)
    np.testing.assert_array_equal(state.terms[0]["a"]["w"], PARAMS["a"]["w"])


@pytest.mark.parametrize("order", [1, -1], ids=["statistics first", "statistics last"])
def test_l2_init_does_not_hold_running_statistics(order):
    terms = (ObservationStatistics(VECTOR), L2Init(cost=1.0))[::order]
    learner = plain(*terms)
    state, learn = jax.jit(learner.init)(KEY), jax.jit(learner.learn)
    batch = batch_of(np.full((4, 2), 100, np.float32), [1, 1, 1])
    for _ in range(2):
        state, metrics = learn(state, batch, KEY)
        assert metrics["gradient_norm"] == metrics["l2_init_distance"] == 0
    assert state.params[STATISTICS].number == 6


# --- Entropy.

P = np.array([0.25, 0.75])
H = -(P * np.log(P)).sum()


def entropy_learner(cost=0.1, actions=None, head=None):
    spec = spec_of(specs.DiscreteArray(3), actions)
    policy = head or networks.CategoricalPolicy(2)
    network = networks.compose(spec, Identity(), policy=policy)
    return Still(network, SGD).with_terms(Entropy(network, cost))


def test_entropy_equals_hand_worked_numbers():
    learner = entropy_learner()
    state = jax.jit(learner.init)(KEY)
    # In state 1, seen in the step without weight, and state 2, the last, other probabilities.
    w = np.float32([[0.0, 0], [5, 0], [0, 9]])
    state = state._replace(params={"policy/linear": {"w": w, "b": np.log(np.float32(P))}})
    loss, metrics, grads = compute(learner, state, batch_of([0, 1, 0, 2], [1, 0, 2]))
    # Weighted terms over an unweighted count.
    assert metrics == approx({"loss": 0, "entropy_loss": -0.1 * 1.5 * H, "entropy_mean": H})
    assert loss == approx(-0.1 * 1.5 * H)
    # The gradient of the entropy with respect to logits is -p (log p + H).
    expected = 0.1 * 1.5 * P * (np.log(P) + H)
    np.testing.assert_allclose(grads["policy/linear"]["b"], expected, rtol=1e-5)
    np.testing.assert_allclose(grads["policy/linear"]["w"], [expected, [0, 0], [0, 0]], rtol=1e-5)


def test_entropy_bonus_spreads_the_policy():
    learner = entropy_learner(cost=1.0)
    params = {"policy/linear": {"w": np.zeros((3, 2), np.float32), "b": np.log(np.float32(P))}}
    state, found = jax.jit(learner.init)(KEY)._replace(params=params), []
    learn = jax.jit(learner.learn)
    for _ in range(30):
        state, metrics = learn(state, batch_of([0, 1, 0, 2], [1, 1, 1]), KEY)
        found.append(float(metrics["entropy_mean"]))
    assert found[0] == approx(H)
    assert (np.diff(found) > -1e-6).all()
    assert found[-1] > np.log(2) - 1e-3


def test_entropy_of_a_normal_policy_equals_hand_worked_numbers():
    actions = specs.BoundedArray((2,), np.float32, [-1, -3], [1, 3])
    learner = entropy_learner(0.5, actions, networks.NormalPolicy(actions))
    state = jax.jit(learner.init)(KEY)
    _, metrics, grads = compute(learner, state, batch_of([0, 1, 0, 2], [1, 1, 1]))
    assert metrics["entropy_mean"] == approx(np.log(3) + np.log(2 * np.pi * np.e))
    np.testing.assert_allclose(grads["policy"]["log_std"], [-0.5, -0.5], rtol=1e-6)


def test_entropy_without_closed_form_is_estimated_from_samples():
    actions = specs.BoundedArray((1,), np.float32, -2, 2)
    learner = entropy_learner(1.0, actions, networks.TanhNormalPolicy(actions, 0.0, 0.0))
    params = {  # u is normal with mean 0.5 and deviation 1
        "policy/linear": {"w": np.zeros((3, 1), np.float32), "b": np.float32([0.5])},
        "policy/linear_1": {"w": np.zeros((3, 1), np.float32), "b": np.zeros(1, np.float32)},
    }
    state = jax.jit(learner.init)(KEY)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, state.params)
    state = state._replace(params=params)
    _, metrics, _ = compute(learner, state, batch_of([0] * 20_001, [1] * 20_000))
    u = np.linspace(-8, 9, 100_001)
    density = np.exp(-0.5 * (u - 0.5) ** 2) / np.sqrt(2 * np.pi)
    log_prob = np.log(density) - np.log(2 * (1 - np.tanh(u) ** 2))
    entropy = -np.trapezoid(density * log_prob, u)
    assert metrics["entropy_mean"] == pytest.approx(entropy, abs=0.03)  # five deviations
    assert metrics["entropy_loss"] == approx(-metrics["entropy_mean"])


def test_entropy_needs_a_stochastic_policy():
    actions = specs.BoundedArray((1,), np.float32, -2, 2)
    learner = entropy_learner(1.0, actions, networks.TanhPolicy(actions))
    with pytest.raises(SettingError, match=r"must have a stochastic policy head, got .*policy"):
        compute(learner, jax.jit(learner.init)(KEY), batch_of([0, 1], [1]))
    spec = spec_of()
    network = networks.compose(spec, networks.MLP(()), value=networks.Value())
    learner = Still(network, SGD).with_terms(Entropy(network))
    with pytest.raises(SettingError, match=r"must have a stochastic policy head, got .*value"):
        compute(learner, jax.jit(learner.init)(KEY), batch_of(np.zeros((2, 2), np.float32), [1]))


# --- RND. Features are the observation times two numbers, W of the predictor and V of the target;
# the linear layer on them is the identity.


class Times(Backbone):
    def __call__(self, observation):
        return hk.Linear(2, with_bias=False)(observation)


ONE = specs.Array((1,), np.float32)
W, V = [2.0, -3], [1.0, -2]  # so the error is the observation squared
SEEN = batch_of(np.float32([[9], [1], [2], [3]]), [1, 0, 1], [10, 0, 20])


def rnd(scale=0.5, optimizer=SGD):
    learner = Still(Network(lambda key: PARAMS, None), optimizer)
    learner = learner.with_terms(RND(spec_of(ONE), scale, Times()))
    state = jax.jit(learner.init)(KEY)
    linear = {"w": np.eye(2, dtype=np.float32), "b": np.zeros(2, np.float32)}
    times = lambda x: {"backbone/linear": {"w": np.float32([x])}, "features/linear": linear}
    target, moments = state.terms[0]
    assert jax.tree.map(jnp.shape, target) == jax.tree.map(jnp.shape, times(V))
    params = state.params | {PREDICTOR: times(W)}
    return learner, state._replace(params=params, terms=((times(V), moments),))


def test_rnd_loss_equals_hand_worked_numbers():
    learner, state = rnd()
    loss, metrics, grads = compute(learner, state, SEEN)
    # Of the observations acted on, 9 and 2, and not of the last, 3.
    expected = (81 + 4) / 2
    assert metrics == approx({"loss": 0, "rnd_loss": expected, "rnd_novelty": expected})
    assert loss == approx(expected)
    w = grads[PREDICTOR]["backbone/linear"]["w"]
    np.testing.assert_allclose(w, [[expected, -expected]], rtol=1e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves([grads["a"], grads["b"]]))


def test_rnd_rewards_equal_hand_worked_numbers():
    learner, state = rnd(scale=0.5)
    (term,), (own,) = learner.terms, state.terms
    # Of the observations led to, 1 and 3, the errors are 1 and 9: deviation 4.
    prepare = jax.jit(term.prepare)
    batch, kept, own = prepare(state.params, own, SEEN)
    expected = np.array([[10 + 0.5 * 1 / 4, 0, 20 + 0.5 * 9 / 4]])
    np.testing.assert_allclose(batch.reward, expected, rtol=1e-6)
    assert kept == {}
    same = batch._replace(reward=SEEN.reward)
    jax.tree.map(np.testing.assert_array_equal, same, SEEN)
    # Then 36, 16 and 4, too: the deviation is a running one.
    more = batch_of(np.float32([[0], [6], [4], [2]]), [1, 1, 1], [0, 0, 0])
    batch, _, own = prepare(state.params, own, more)
    expected = 0.5 * np.array([[36, 16, 4]]) / np.std([1, 9, 36, 16, 4])
    np.testing.assert_allclose(batch.reward, expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, own[0], state.terms[0][0])


@pytest.mark.slow
def test_rnd_predictor_learns_what_was_seen_and_the_target_never_changes():
    learner = Still(Network(lambda key: PARAMS, None), optax.adam(1e-2))
    learner = learner.with_terms(RND(spec_of(), scale=1.0))
    state, learn = learner.init(KEY), jax.jit(learner.learn)
    (target, _), rng = state.terms[0], np.random.default_rng(0)
    places = rng.normal(size=(2, 9, 2)) + np.array([3, -3])[:, None, None]
    seen, unseen = (batch_of(np.float32(x), [1] * 8) for x in places)
    measured = jax.jit(lambda state, batch: learner.batch_loss(state.params, batch, KEY, state)[1])
    novelty = lambda state, batch: measured(state, batch)["rnd_novelty"]
    first, far = novelty(state, seen), novelty(state, unseen)
    assert min(first, far) > 0.1  # a predictor that begins as the target has nothing to learn
    for _ in range(150):
        state, _ = learn(state, seen, KEY)
    assert novelty(state, seen) < 0.01 * first
    assert novelty(state, unseen) > 0.1 * far
    jax.tree.map(np.testing.assert_array_equal, state.terms[0][0], target)


def test_terms_whose_parameters_clash_are_refused():
    class Other(RND):
        name = "other"

    with pytest.raises(
        SettingError, match=r"Other: parameters \{'rnd_predictor'\} are there already"
    ):
        jax.eval_shape(plain(RND(spec_of()), Other(spec_of())).init, KEY)


# --- Beside the loss of an agent, on a batch its own actor and adder made.

PLAIN = {"normalise_observations": False, "scale_rewards": False}
REPLAY = {"min_size": 30, "capacity": 100, "batch_size": 12, "period": 48}
OFF_POLICY = {"backbone": networks.MLP((8,)), **REPLAY}
AGENTS = {
    "reinforce": reinforce.Config(networks.MLP((8,)), value_steps=1, episodes_per_update=4),
    "a2c": a2c.Config(networks.MLP((8,)), unroll_length=16),
    "impala": impala.Config(networks.MLP((8,)), unroll_length=16, **PLAIN),
    "ppo": ppo.Config(networks.MLP((8,)), unroll_length=16, epochs=1, minibatches=1, **PLAIN),
    "dqn": dqn.Config(**OFF_POLICY),
    "prioritised": dqn.Config(prioritised=True, **OFF_POLICY),
    "sac": sac.Config(**OFF_POLICY),
    "td3": td3.Config(policy_period=1, **OFF_POLICY),
    "ddpg": ddpg.Config(**OFF_POLICY),
}
SPEC = spec_of()
CONTINUOUS = spec_of(actions=specs.BoundedArray((2,), np.float32, -2.0, 2.0))


def spec_for(config):
    return CONTINUOUS if isinstance(config, sac.Config | td3.Config) else SPEC


def entropy_for(config, agent):
    """Returns the entropy term for an agent, or none where no policy has an entropy."""
    if isinstance(config, dqn.Config | td3.Config):
        return ()
    part = "policy" if isinstance(config, sac.Config) else None
    return (Entropy(agent.actor.network, 0.2, part),)


@functools.cache
def agent_and_batch(config):
    """Returns an agent with terms, the state of its learner, and a batch of random experience."""
    spec = spec_for(config)
    agent, num_envs = config.make(spec), 3
    terms = RND(spec, 0.7, networks.MLP((4,))), L2Init(0.3), *entropy_for(config, agent)
    agent = dataclasses.replace(agent, learner=agent.learner.with_terms(*terms))
    state = jax.jit(lambda: initial.init(agent, spec, 0, num_envs))()
    length, rng = agent.adder.schedule(num_envs).block_length or 64, np.random.default_rng(1)
    place = np.stack([np.arange(length + 1) % (4 + i) for i in range(num_envs)], axis=1)
    step_type = np.where(place == 0, StepType.FIRST, StepType.MID)
    step_type = np.where(place == 3 + np.arange(num_envs), StepType.LAST, step_type)
    ended = (step_type == StepType.LAST) & (rng.random(place.shape) < 0.5)
    timestep = dm_env.TimeStep(
        step_type.astype(np.int32),
        np.where(place == 0, 0, rng.normal(size=place.shape)).astype(np.float32),
        np.float32(1 - ended),
        rng.normal(size=(*place.shape, 2)).astype(np.float32),
    )

    def play(state, timestep):
        def act(actor, inputs):
            t, now = inputs
            key = jnp.zeros(2, jnp.uint32)
            found = core.act(agent.actor, state.learner.params, key, t, now, actor)
            return found[1], Row(now, found[0], found[2])

        actor = initial.initial_actor_state(agent.actor, num_envs)
        block = jax.tree.map(lambda x: x[:-1], timestep)
        rows = jax.lax.scan(act, actor, (jnp.arange(length), block))[1]
        last = jax.tree.map(lambda x: x[-1], timestep)
        adder = agent.adder.add(state.adder, rows, length, last)
        return agent.adder.ready(adder), agent.adder.sample(adder, KEY)[1]

    ready, batch = jax.jit(play)(state, timestep)
    assert ready
    return agent, state.learner, batch


KINDS = ("ppo", "sac")  # a learner with terms does not know which the others are
EACH = [
    pytest.param(config, id=name, marks=() if name in KINDS else pytest.mark.thorough)
    for name, config in AGENTS.items()
]


@pytest.mark.slow
@pytest.mark.parametrize("config", EACH)
def test_terms_add_their_gradients_to_those_of_any_agent(config):
    agent, state, batch = agent_and_batch(config)
    rng = np.random.default_rng(2)
    shift = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
    params = jax.tree.map(shift, state.params)  # or L2Init had nothing to do
    sgd = SGD
    if isinstance(config, td3.Config):  # whose update looks into the state of its optimiser
        sgd = optax.partition({"policy": SGD, "other": SGD}, td3._labels)
    learner = dataclasses.replace(agent.learner, optimizer=sgd)
    without = dataclasses.replace(learner, terms=())
    alone = Still(learner.network, sgd, terms=learner.terms)
    state = state._replace(params=params, opt_state=sgd.init(params))

    @jax.jit
    def all_three(state):
        prepared = learner.terms[0].prepare(state.params, state.terms[0], batch.masked())[0]
        return (
            learner.learn(state, batch, KEY),
            without.update(state._replace(terms=()), prepared, KEY),
            alone.update(state, prepared, KEY),
            prepared.reward,
        )

    found = jax.device_get(all_three(state))
    (both, metrics), (own, own_metrics), (added, added_metrics), reward = found
    assert not np.allclose(reward, batch.masked().reward, atol=1e-2)

    def check(after, one, other, before):
        expected = (one - before) + (other - before)
        np.testing.assert_allclose(after - before, expected, rtol=1e-4, atol=1e-5)

    jax.tree.map(check, both.params, own.params, added.params, params)
    network = params.keys() - {PREDICTOR}
    for tree in (own.params, added.params):
        moved = lambda x, y: not np.allclose(x, y, atol=1e-3)
        assert any(
            jax.tree.leaves(
                jax.tree.map(moved, *({k: t[k] for k in network} for t in (tree, params)))
            )
        )
    metrics.pop("weight_0_fraction")  # of the batch, not of what `update` says
    names = {"rnd_loss", "rnd_novelty", "l2_init_loss", "l2_init_distance"}
    if entropy := entropy_for(config, agent):
        names |= {"entropy_loss", "entropy_mean"}
    assert metrics.keys() == own_metrics.keys() | names
    for name in names:
        assert metrics[name] == approx(added_metrics[name]), name
    assert metrics["loss"] == approx(own_metrics["loss"])
    if entropy:
        assert metrics["entropy_loss"] == approx(-0.2 * metrics["entropy_mean"])
    assert metrics["l2_init_loss"] == approx(0.3 * metrics["l2_init_distance"] ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("config", EACH)
def test_terms_train_with_the_optimizer_of_any_agent(config):
    agent, state, batch = agent_and_batch(config)
    learn = jax.jit(agent.learner.learn)
    after, metrics = learn(state, batch, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, after)))
    moved = lambda x, y: x.ndim == 1 or not np.array_equal(x, y)
    assert jax.tree.all(jax.tree.map(moved, state.params, after.params))
    assert metrics["l2_init_distance"] == 0
    again = learn(after, batch, KEY)[1]
    assert again["l2_init_distance"] > 0
    assert again["rnd_novelty"] < metrics["rnd_novelty"]
    assert after.updates == 1


@pytest.mark.slow
@pytest.mark.parametrize("config", [dqn.Config(), td3.Config()])
def test_entropy_names_agents_whose_policy_has_none(config):
    agent = config.make(spec_for(config))
    part = "policy" if isinstance(config, td3.Config) else None
    agent = dataclasses.replace(
        agent, learner=agent.learner.with_terms(Entropy(agent.actor.network, 0.2, part))
    )
    with pytest.raises(SettingError, match="Entropy: the network must have a stochastic policy"):
        initial.init(agent, spec_for(config), 0, 1)


def test_terms_of_one_name_are_refused():
    learner = ppo.Config(scale_rewards=False, normalise_observations=False).make(SPEC).learner
    with pytest.raises(SettingError, match="with_terms: names must differ, got l2_init twice"):
        learner.with_terms(L2Init(), L2Init(cost=1.0))


def test_a_term_without_a_loss_logs_none():
    agent = a2c.Config(backbone=networks.MLP((8,)), scale_rewards=True).make(SPEC)
    assert agent.learner.terms
    metrics = jax.eval_shape(lambda: initial.init(agent, SPEC, 0, 2)).totals.metrics
    assert "loss" in metrics
    assert not [name for name in metrics if "reward_scale" in name]
