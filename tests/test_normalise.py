"""Normalised observations and scaled rewards: statistics against NumPy, acting against learning."""

import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_env import StepType, specs

from agents_zoo import a2c, impala, ppo, reinforce
from rlws import networks
from rlws.actor import PolicyActor
from rlws.adders import Unrolls
from rlws.agent import Agent
from rlws.environments import CartPole
from rlws.learner import Learner
from rlws.normalise import STATISTICS, normalise_observations, scale_rewards
from rlws.terms.moments import Moments
from rlws.trainers import core, initial
from rlws.trainers.evaluation import evaluator
from rlws.types import EnvironmentSpec, Row

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST
NESTED = {
    "x": specs.Array((2,), np.float32),
    "image": specs.BoundedArray((2, 1), np.uint8, 0, 255),
    "n": specs.DiscreteArray(4),
}


def spec_of(observations):
    return EnvironmentSpec(observations, specs.DiscreteArray(3), max_episode_steps=10)


# --- Moments.


@functools.cache
def moments_update():
    return jax.jit(Moments.update)


def merged(x, rng, parts, width):
    """Returns the moments of x in random parts, each padded with NaN and in random order."""
    moments = Moments.of(x.shape[1:])
    for part in np.split(x, np.sort(rng.integers(0, len(x), parts - 1))):
        padding = np.full((width - len(part), *x.shape[1:]), np.nan, np.float32)
        order = rng.permutation(width)
        weight = rng.uniform(0.1, 3, width).astype(np.float32) * (np.arange(width) < len(part))
        padded = np.concatenate([part, padding])
        moments = moments_update()(moments, padded[order], weight[order])
    return jax.device_get(moments)


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
@pytest.mark.parametrize(("scale", "shape"), [(1.0, ()), (1.0, (3,)), (100.0, (2, 2))])
def test_moments_of_random_splits_are_numpys(offset, scale, shape):
    rng = np.random.default_rng(0)
    x = (offset + scale * rng.normal(size=(3000, *shape))).astype(np.float32)
    moments, exact = merged(x, rng, 30, 1000), x.astype(np.float64)
    assert moments.number == 3000
    mean = np.float64(moments.mean) + np.float64(moments.mean_low)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(mean - offset, exact.mean(0) - offset, atol=1e-6 * scale)
    np.testing.assert_allclose(moments.squares / 3000, exact.var(0), rtol=1e-6)
    np.testing.assert_allclose(Moments(*moments).deviation(), exact.std(0), rtol=1e-6)


def test_moments_equal_hand_worked_numbers():
    moments = Moments.of(())
    batches = ([2.0, 99], [1, 0]), ([4, 6], [1, 0.5]), ([99, 99], [0, 0]), ([8, 99], [2, 0])
    for batch, weight in batches:
        moments = moments_update()(moments, np.float32(batch), np.float32(weight))
    assert (moments.number, moments.mean + moments.mean_low, moments.squares) == (4, 5, 20)
    assert moments.deviation() == np.sqrt(np.float32(5))


@pytest.mark.parametrize("value", [0.0, 3.3, 1e6])
def test_moments_without_variance_have_deviation_1(value):
    moments = Moments.of((2,))
    assert moments.deviation().tolist() == [1, 1]
    for count in (1, 1, 7):
        ones = np.ones(count, np.float32)
        moments = moments_update()(moments, np.full((count, 2), value, np.float32), ones)
        assert moments.deviation().tolist() == [1, 1]
    np.testing.assert_allclose(moments.mean + moments.mean_low, value, rtol=1e-7)


# --- Agents that play a given stream.


class Watch(Learner):
    """Changes nothing, and returns as metrics what it was given."""

    def update(self, state, batch, key):
        return state, {"batch": batch}


class Probe(Watch):
    """Returns, besides, the log-probabilities it finds of what was done."""

    def update(self, state, batch, key):
        log_prob = batch.extras.get("log_prob", ())
        policy = jax.vmap(self.network.unroll, (None, 0))(state.params, batch).policy
        again = networks.Categorical(policy.logits[:, :-1]).log_prob(batch.action)
        return state, {"batch": batch, "log_prob": again, "acted": log_prob}


def make(observations, length=5, learner=Probe):
    spec = spec_of(observations)
    policy = networks.CategoricalPolicy(3, scale=1.0)
    network = networks.compose(spec, networks.MLP((16,)), policy=policy)
    actor, greedy = PolicyActor(network, log_prob=True), PolicyActor(network, greedy=True)
    return Agent(actor, learner(network, optax.sgd(1.0)), Unrolls(length), greedy), spec


def timesteps(rng, rows, num_envs, observe, longest=4):
    """Returns timesteps [T, B] of random episodes; `observe` makes observations of a shape."""
    step_type = np.zeros((rows, num_envs), np.int32)
    for column in step_type.T:
        episodes = ([F, *[M] * (n - 1), L] for n in rng.integers(1, longest + 1, rows))
        column[:] = np.concatenate(list(episodes))[:rows]
    reward = np.where(step_type == F, 0, rng.normal(2, 3, step_type.shape)).astype(np.float32)
    ends = (step_type == L) & (rng.random(step_type.shape) < 0.5)
    return dm_env.TimeStep(step_type, reward, np.float32(1 - ends), observe(step_type.shape))


def programs(make, num_envs):
    """Returns jitted programs of what `make` takes, an agent and its spec coming of that.

    To begin with `num_envs` environments, and to feed it a block of a stream.
    """

    def begin(*args):
        agent, spec = make(*args)
        state = initial.init(agent, spec, 0, num_envs)
        return state.learner, state.adder, initial.initial_actor_state(agent.actor, num_envs)

    def advance(state, timestep, begin, *args):
        agent, _ = make(*args)
        learner, adder, actor = state
        length, key = len(timestep.reward) - 1, jnp.zeros(2, jnp.uint32)

        def act(actor, inputs):
            t, now = inputs
            action, actor, extras = core.act(agent.actor, learner.params, key, t, now, actor)
            return actor, Row(now, action, extras)

        block = jax.tree.map(lambda x: x[:length], timestep)
        actor, added = jax.lax.scan(act, actor, (begin + jnp.arange(length), block))
        adder = agent.adder.add(adder, added, length, jax.tree.map(lambda x: x[length], timestep))
        taken, batch = agent.adder.sample(adder, jax.random.key(0))
        learned, metrics = agent.learner.learn(learner, batch, jax.random.key(begin))
        return agent.adder.ready(adder), (learner, adder, actor), (learned, taken, actor), metrics

    return jax.jit(begin), jax.jit(advance)


def play(agent, spec, timestep):
    """Yields (params before, metrics, state after) of each update of an agent fed this stream."""
    num_envs = timestep.reward.shape[1]
    length = agent.adder.schedule(num_envs).block_length or 1
    return played(*programs(lambda: (agent, spec), num_envs), length, timestep)


def played(begin_with, advance, length, timestep, *args):
    """Yields the same of the agent that programs of `args` are of."""
    rows, state = len(timestep.reward), begin_with(*args)
    for begin in range(0, rows - length, length):
        part = jax.tree.map(lambda x, t=begin: x[t : t + length + 1], timestep)
        before = state[0].params
        ready, waiting, learned, metrics = advance(state, part, begin, *args)
        state = learned if ready else waiting
        if ready:
            yield before, metrics, learned[0]


# --- Observations.


def observe(rng):
    return lambda shape: {
        "x": rng.normal([50, -3], [5, 0.1], (*shape, 2)).astype(np.float32),
        "image": rng.integers(0, 256, (*shape, 2, 1)).astype(np.uint8),
        "n": rng.integers(0, 4, shape).astype(np.int32),
    }


@pytest.fixture(scope="module")
def nested():
    """The stream, and each update of an agent that saw it."""
    agent, spec = make(NESTED)
    rng = np.random.default_rng(1)
    timestep = timesteps(rng, 41, 3, observe(rng))
    return timestep, jax.device_get(list(play(normalise_observations(agent, spec), spec, timestep)))


def acted_on(timestep, steps):
    """Returns the observations x of the first `steps` rows that are no last ones, [n, 2]."""
    return timestep.observation["x"][:steps][timestep.step_type[:steps] != L].astype(np.float64)


def test_normalise_statistics_are_those_of_what_was_acted_on(nested):
    timestep, updates = nested
    assert len(updates) == 8
    for i, (_, _, after) in enumerate(updates):
        statistics = after.params[STATISTICS]
        assert statistics["image"] is statistics["n"] is None
        moments, seen = statistics["x"], acted_on(timestep, 5 * (i + 1))
        assert moments.number == len(seen)
        np.testing.assert_allclose(moments.mean + moments.mean_low, seen.mean(0), rtol=1e-6)
        np.testing.assert_allclose(Moments(*moments).deviation(), seen.std(0), rtol=1e-5)


def test_normalise_batches_by_the_statistics_before_the_update(nested):
    timestep, updates = nested
    for i, (_, metrics, _) in enumerate(updates):
        batch, begin = metrics["batch"], 5 * i
        x = timestep.observation["x"][begin : begin + 6].swapaxes(0, 1).astype(np.float64)
        if i:  # at first, there are none
            seen = acted_on(timestep, begin)
            x = (x - seen.mean(0)) / seen.std(0)
        # All of it, also the last observation of each episode, from which values are bootstrapped.
        looked_at = batch.weight > 0
        looked_at = np.pad(looked_at, [(0, 0), (0, 1)]) | np.pad(looked_at, [(0, 0), (1, 0)])
        found = batch.observation["x"][looked_at]
        np.testing.assert_allclose(found, np.clip(x, -10, 10)[looked_at], atol=2e-4)
        for name in ("image", "n"):
            same = timestep.observation[name][begin : begin + 6].swapaxes(0, 1)[looked_at]
            np.testing.assert_array_equal(batch.observation[name][looked_at], same)
            assert batch.observation[name].dtype == same.dtype


def test_normalise_acting_and_learning_use_the_same_statistics(nested):
    _, updates = nested
    for before, metrics, after in updates:
        real = metrics["batch"].weight > 0
        recomputed, acted = metrics["log_prob"][real], metrics["acted"][real]
        np.testing.assert_allclose(recomputed, acted, atol=1e-5)
        assert np.ptp(acted) > 0.05  # they would not agree by being constant
        old, new = (params[STATISTICS]["x"].mean for params in (before, after.params))
        assert np.abs(new - old).max() > 0.01


def test_normalise_clips_at_its_limit():
    agent, spec = make(NESTED["x"])
    agent = normalise_observations(agent, spec, limit=0.5)
    rng = np.random.default_rng(2)
    outliers = lambda shape: rng.standard_cauchy((*shape, 2)).astype(np.float32)
    updates = play(agent, spec, timesteps(rng, 41, 2, outliers))
    largest = [np.abs(metrics["batch"].observation).max() for _, metrics, _ in updates]
    assert max(largest) == largest[0] == 0.5


@pytest.fixture(scope="module")
def trained():
    """An agent for CartPole, its parameters after some statistics, and its network alone."""
    spec = CartPole().spec()
    policy = networks.CategoricalPolicy(2, scale=1.0)
    network = networks.compose(spec, networks.MLP((16,)), policy=policy)
    greedy, learner = PolicyActor(network, greedy=True), Probe(network, optax.sgd(1.0))
    agent = Agent(PolicyActor(network), learner, Unrolls(5), greedy)
    agent, rng = normalise_observations(agent, spec), np.random.default_rng(3)
    observe = lambda shape: rng.normal(0.3, 0.2, (*shape, 4)).astype(np.float32)
    (*_, (_, _, state)) = play(agent, spec, timesteps(rng, 21, 2, observe))
    return agent, state.params, network


def test_normalise_evaluator_sees_what_the_actor_sees(trained):
    agent, params, network = trained
    moments, deviation = jax.jit(lambda x: (x, x.deviation()))(params[STATISTICS])
    x = np.random.default_rng(4).normal(0.3, 0.2, (20, 4)).astype(np.float32)
    act = lambda x: agent.evaluator.select_action(params, dm_env.restart(x), (), None)[0]
    actions = jax.jit(jax.vmap(act))(x)
    normalised = (x - np.asarray(moments.mean)) / np.asarray(deviation)
    logits = jax.jit(network.apply)(params, normalised).policy.logits
    np.testing.assert_array_equal(actions, np.argmax(logits, axis=-1))
    assert set(actions.tolist()) == {0, 1}


def test_normalise_evaluation_changes_no_statistics(trained):
    agent, params, _ = trained
    before = jax.tree.map(np.array, params)
    evaluate = evaluator(agent, "jax:CartPole-v1", 5)
    first, second = evaluate(params, 0), evaluate(params, 0)
    jax.tree.map(np.testing.assert_array_equal, params, before)
    np.testing.assert_array_equal(first[0], second[0])


# --- Rewards.


def scaled_by_hand(timestep, discount, length):
    """Returns for each batch the divisor of its rewards, from a loop over episodes."""
    found, returns, so_far = [], [], np.zeros(timestep.reward.shape[1])
    for t in range(len(timestep.reward) - 1):
        ended = timestep.step_type[t] == L
        # The return of an episode that ends in row t + 1 counts, and is zero for the next one.
        so_far = np.where(ended, 0.0, discount * so_far + timestep.reward[t + 1])
        returns += so_far[~ended].tolist()
        if (t + 1) % length == 0:
            found.append(np.std(returns) or 1.0)
    return found


@functools.cache
def scaling(num_envs, length):
    """Returns the programs of an agent whose rewards are scaled by a discount they are given."""

    def scaled(discount):
        agent, spec = make(NESTED["x"], length, Watch)
        return scale_rewards(agent, discount), spec

    return *programs(scaled, num_envs), length


# Episodes have up to 4 steps, so each block of 10 rows spans several.
@pytest.mark.parametrize(
    ("num_envs", "length", "discount"), [(1, 1, 0.9), (3, 10, 0.9), (3, 10, 1.0), (3, 10, 0.0)]
)
def test_scale_rewards_follows_a_loop_over_episodes(num_envs, length, discount):
    rng = np.random.default_rng(5)
    zeros = lambda shape: np.zeros((*shape, 2), np.float32)
    timestep = timesteps(rng, 81, num_envs, zeros)
    divisors = scaled_by_hand(timestep, discount, length)
    updates = list(played(*scaling(num_envs, length), timestep, discount))
    assert len(updates) == len(divisors) == 80 // length
    for i, (divisor, (_, metrics, _)) in enumerate(zip(divisors, updates, strict=True)):
        batch, begin = metrics["batch"], i * length
        rewards = timestep.reward[begin + 1 : begin + length + 1].T
        found = np.where(batch.weight > 0, batch.reward, 0)
        np.testing.assert_allclose(found, rewards / divisor, rtol=2e-5)  # divided, not shifted
        assert batch.extras.keys() == {"log_prob"}


# rewards of an episode, played again and again: divisor
LAST_REWARDS = {
    "in the last step only": ([0.0, 4.0], 2.0),  # returns 0, 4
    "in the first step only": ([4.0, 0.0], 1.0),  # returns 4, 2
    "of one step": ([3.0], 1.0),  # no variance
    "in both": ([2.0, 5.0], 2.0),  # returns 2, 6
}


@pytest.mark.parametrize(("rewards", "divisor"), LAST_REWARDS.values(), ids=LAST_REWARDS)
def test_scale_rewards_counts_the_last_reward_and_then_starts_anew(rewards, divisor):
    episodes = 12 // (len(rewards) + 1)
    kinds = [F, *[M] * (len(rewards) - 1), L] * episodes + [F]
    zeros = np.zeros((len(kinds), 1))
    timestep = dm_env.TimeStep(
        np.array(kinds, np.int32)[:, None],
        np.array([0, *rewards] * episodes + [0], np.float32)[:, None],
        np.float32(zeros + 1),
        np.zeros((len(kinds), 1, 2), np.float32),
    )
    ((_, metrics, _),) = played(*scaling(1, 12), timestep, 0.5)
    expected = np.array([*rewards, 0] * episodes)[None] / divisor
    np.testing.assert_allclose(metrics["batch"].reward, expected, rtol=1e-6)


def test_scale_rewards_leaves_evaluation_alone():
    agent, _ = make(NESTED["x"])
    assert scale_rewards(agent, 0.9).evaluator is agent.evaluator


# --- Any agent.

PLAIN = {"normalise_observations": False, "scale_rewards": False}
AGENTS = {
    "reinforce": reinforce.Config(episodes_per_update=2),
    "a2c": a2c.Config(unroll_length=8),
    "impala": impala.Config(unroll_length=8, **PLAIN),
    "ppo": ppo.Config(unroll_length=8, minibatches=2, epochs=2, **PLAIN),
}


@pytest.mark.slow
@pytest.mark.parametrize("config", AGENTS.values(), ids=AGENTS)
def test_normalise_and_scale_any_agent(config):
    spec = spec_of(NESTED["x"])
    agent = scale_rewards(normalise_observations(config.make(spec), spec), 0.9)
    rng = np.random.default_rng(6)
    observe = lambda shape: rng.normal([50, -3], [5, 0.1], (*shape, 2)).astype(np.float32)
    updates = list(play(agent, spec, timesteps(rng, 65, 2, observe)))
    assert len(updates) > 2
    for before, metrics, after in updates:
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics, after)))
        assert not np.array_equal(before[STATISTICS].mean, after.params[STATISTICS].mean)
        changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), before, after.params)
        assert any(jax.tree.leaves(changed["policy/linear"]))
    assert metrics["gradient_norm"] > 0
