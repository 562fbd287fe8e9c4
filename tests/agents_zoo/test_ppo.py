"""PPO: advantages, minibatches, clipping and annealing, against numbers by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_env import specs

from agents_zoo import ppg, ppo
from rlws import environments
from rlws.critics import Quantiles, Scalar
from rlws.diagnose import probes
from rlws.diagnose.tabular import Tabular
from rlws.networks import GRU, MLP, Network
from rlws.numerics.means import standardise
from rlws.settings import SettingError
from rlws.trainers import DeviceTrainer, HostTrainer
from rlws.trainers.program import Program
from rlws.types import EnvironmentSpec
from tests.agents_zoo.trajectories import trajectory

KEY = jax.random.key(0)


def small(**settings):
    plain = dict(epochs=4, minibatches=4, normalise_observations=False, scale_rewards=False)
    return ppo.Config(**{**plain, **settings})


class Outputs(dict):
    __getattr__ = dict.__getitem__


def tabular(values):
    """Returns a network whose value of observation i is values[i]."""
    apply = lambda params, observation: Outputs(value=jnp.asarray(values)[observation])
    return Network(lambda key: {}, apply)


def samples(values, **fields):
    config = small(discount=0.9, gae_lambda=0.8)
    learner = ppo.PPO(tabular(values), optax.sgd(1.0), config)
    return jax.device_get(jax.jit(learner.samples)({}, trajectory(**fields)))


def test_ppo_advantages_in_the_middle_of_an_episode():
    found = samples([1.0, 2, 3, 4], reward=[1, 1, 1]).extras
    np.testing.assert_allclose(found["advantage"], [3.85344, 2.852, 1.6], atol=1e-6)
    np.testing.assert_allclose(found["return"], [4.85344, 4.852, 4.6], atol=1e-6)


def test_ppo_advantages_stop_at_termination():
    # Rows: s0, s1, LAST (value irrelevant), FIRST; the step between the last two has no weight.
    fields = dict(reward=[1, 1, 0, 1], discount=[1, 0, 1, 1], last=[0, 1, 0, 0])
    found = samples([1.0, 2, 77, 3, 4], **fields).extras["advantage"]
    np.testing.assert_allclose(np.array(found)[[0, 1, 3]], [1.08, -1, 1.6], atol=1e-6)


def test_ppo_advantages_bootstrap_from_the_last_observation_of_a_truncated_episode():
    fields = dict(reward=[1, 1, 0, 1], discount=[1, 1, 1, 1], last=[0, 1, 0, 0])
    found = samples([1.0, 2, 10, 3, 4], **fields).extras["advantage"]
    np.testing.assert_allclose(np.array(found)[[0, 1, 3]], [7.56, 8, 1.6], atol=1e-6)


SPEC = environments.make("jax:CartPole-v1").spec()


@functools.cache
def batch_loss(**settings):
    """Returns the compiled loss of a batch, its parameters all zero: uniform policy, value 0."""
    config = small(backbone=MLP((8,)), normalise_advantages=False, **settings)
    learner = config.make(SPEC).learner
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(learner.init, KEY))
    return jax.jit(lambda batch: learner.batch_loss(state.params, batch, KEY, state))


def loss_of(ratio, advantage, **settings):
    """Returns loss and metrics of two steps with these probability ratios and advantages."""
    batch = trajectory(
        observation=np.zeros((3, 4), np.float32), reward=[0, 0], action=[0, 1]
    ).without_final()
    extras = {
        "log_prob": np.float32(np.log(0.5) - np.log(ratio)),
        "advantage": np.float32(advantage),
        "return": np.float32([1, 2]),
        "value": np.float32([0.9, -0.5]),
    }
    batch = jax.tree.map(lambda x: x[None], batch._replace(extras=extras))
    loss, metrics = batch_loss(**settings)(batch)
    return float(loss), {name: float(x) for name, x in metrics.items()}


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        ([1.0, 1.0], [2.0, -4.0], 1.0),
        ([1.5, 1.5], [2.0, -4.0], (-1.2 * 2 + 1.5 * 4) / 2),  # clipped from above where A > 0
        ([0.5, 0.5], [2.0, -4.0], (-0.5 * 2 + 0.8 * 4) / 2),  # and from below where A < 0
    ],
)
def test_ppo_clips_the_ratio_on_the_side_that_gains(ratio, advantage, expected):
    loss, metrics = loss_of(ratio, advantage, value_cost=0.0)
    np.testing.assert_allclose(loss, expected, atol=1e-6)
    clipped = np.mean([abs(r - 1) > 0.2 for r in ratio])
    assert metrics["clipped"] == pytest.approx(clipped)
    kl = np.mean([r - 1 - np.log(r) for r in ratio])
    np.testing.assert_allclose(metrics["kl"], kl, atol=1e-6)


def test_ppo_value_loss_and_its_clipping():
    base = dict(ratio=[1.0, 1.0], advantage=[0.0, 0.0])
    loss, _ = loss_of(**base, value_cost=1.0)
    np.testing.assert_allclose(loss, (1 + 4) / 4, atol=1e-6)
    loss, _ = loss_of(**base, value_cost=1.0, value_clip=0.2)
    # V = 0, V_old = (0.9, -0.5): clipped to 0.7 and -0.3; the larger error counts: 1 and 2.3^2.
    np.testing.assert_allclose(loss, (1 + 2.3**2) / 4, atol=1e-6)


def test_ppo_value_may_be_said_by_any_critic():
    """Three quantiles at 0, of returns that are 1 and 2: sums of |level| times Huber losses."""
    loss, _ = loss_of([1.0, 1.0], [0.0, 0.0], value_cost=1.0, critic=Quantiles(3))
    np.testing.assert_allclose(loss, 1.5 * (0.5 + 1.5) / 2, atol=1e-6)
    two = dict(value_clip=0.2, value_cost=1.0)
    huber, _ = loss_of([1.0, 1.0], [0.0, 0.0], **two, critic=Scalar("huber"))
    np.testing.assert_allclose(huber, (0.5 + 1.8) / 2, atol=1e-6)


@pytest.mark.parametrize("critic", [Quantiles(3), Scalar(scale="symlog")])
@pytest.mark.parametrize("agent", [ppo, ppg])
def test_ppo_clips_the_change_of_numbers_only(critic, agent):
    with pytest.raises(SettingError, match=r"value_clip needs the critic Scalar on a linear scale"):
        agent.Config(value_clip=0.2, critic=critic).make(SPEC)


def test_ppo_entropy_bonus():
    loss, metrics = loss_of([1.0, 1.0], [0.0, 0.0], value_cost=0.0, entropy_cost=0.1)
    np.testing.assert_allclose(loss, -0.1 * np.log(2), atol=1e-6)
    np.testing.assert_allclose(metrics["entropy"], np.log(2), atol=1e-6)


def real_batch(config, num_envs=4, seed=0, environment="jax:CartPole-v1"):
    """Returns an agent's learner state and a batch it has just collected."""
    if isinstance(environment, str):
        environment = environments.make(environment)
    agent = config.make(environment.spec())
    program = Program(agent, environment, num_envs)
    run, batch = jax.jit(lambda: _collect(program, program.init(seed)))()
    return agent, run.state.learner, batch


def _collect(program, run):
    length = program.agent.adder.schedule(program.num_envs).block_length
    step = lambda run, _: program.step(run, run.state.learner.params)[:2]
    run, rows = jax.lax.scan(step, run, length=length)
    adder = program.agent.adder.add(run.state.adder, rows, length, run.timestep)
    return run, program.agent.adder.sample(adder, KEY)[1]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [MLP(), GRU(MLP((8,)), 8)], ids=["feed-forward", "recurrent"])
@pytest.mark.parametrize("normalise", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_ppo_ratio_is_one_before_the_first_gradient(backbone, normalise):
    """Also across the ends of episodes: the core is reset in learning as in acting."""
    config = small(backbone=backbone, unroll_length=64, normalise_observations=normalise)
    agent, state, batch = real_batch(config)
    assert batch.last.any()
    batch = batch.masked()
    for term, own in zip(agent.learner.terms, state.terms, strict=True):
        batch, _, _ = term.prepare(state.params, own, batch)
    found = jax.vmap(lambda x: agent.learner.samples(state.params, x))(batch)
    again = jax.vmap(
        lambda x: agent.learner.network.unroll(state.params, x).policy.log_prob(x.action)
    )
    real = batch.weight > 0
    difference = np.where(real, again(found) - batch.extras["log_prob"], 0.0)
    assert np.abs(np.expm1(difference)).max() < 1e-5


def drawn(config, num_envs=4, ends=0.2):
    """Returns an agent, its learner's state and a batch as its actor might have collected it."""
    agent, rng = config.make(SPEC), np.random.default_rng(0)
    last = rng.random((num_envs, config.unroll_length)) < ends
    normal = lambda *shape: rng.normal(size=(num_envs, *shape)).astype(np.float32)
    one = lambda i: trajectory(
        observation=normal(config.unroll_length + 1, 4)[i],
        reward=normal(config.unroll_length)[i],
        action=rng.integers(0, 2, config.unroll_length).astype(np.int32),
        last=last[i],
    )._replace(extras={"log_prob": np.full(config.unroll_length, np.log(0.5), np.float32)})
    batch = jax.tree.map(lambda *x: np.stack(x), *map(one, range(num_envs)))
    return agent, jax.jit(agent.learner.init)(KEY), batch


def test_ppo_each_epoch_sees_each_step_once():
    config = small(backbone=MLP((8,)), unroll_length=16, epochs=3, minibatches=4)
    agent, state, batch = drawn(config, ends=0)
    seen = []

    class Counting(ppo.PPO):
        def loss(self, params, trajectory, key, state):
            jax.debug.callback(lambda x: seen.append(np.array(x)), trajectory.extras["name"])
            return super().loss(params, trajectory, key, state)

    fields = {f.name: getattr(agent.learner, f.name) for f in dataclasses.fields(agent.learner)}
    names = np.arange(batch.reward.size).reshape(batch.reward.shape)
    batch = batch._replace(extras={**batch.extras, "name": names})
    jax.jit(Counting(**fields).learn)(state, batch, KEY)
    jax.effects_barrier()
    counts = np.bincount(np.concatenate([x.ravel() for x in seen]), minlength=names.size)
    np.testing.assert_array_equal(counts, config.epochs)


def test_ppo_minibatches_must_divide_the_batch():
    agent, state, batch = drawn(small(unroll_length=18, minibatches=5), num_envs=1)
    with pytest.raises(SettingError, match="18 steps of a batch must be minibatches=5 of whole"):
        jax.eval_shape(agent.learner.learn, state, batch, KEY)


@pytest.mark.slow
def test_ppo_anneals_to_nothing():
    config = small(backbone=MLP((8,)), unroll_length=16, anneal_steps=64)
    agent, state, batch = drawn(config)
    learn = jax.jit(agent.learner.learn)
    moved, _ = learn(state, batch, KEY)
    assert moved.extra == (batch.weight > 0).sum()
    whole = dataclasses.replace(config, anneal_steps=None).make(SPEC)
    full, _ = jax.jit(whole.learner.learn)(state, batch, KEY)
    # Nothing learned from yet: the whole rate. Later less, and at last none.
    jax.tree.map(np.testing.assert_allclose, moved.params, full.params)
    still, nothing = learn(state._replace(extra=np.float32(64)), batch, KEY)
    jax.tree.map(np.testing.assert_array_equal, still.params, state.params)
    assert nothing["update_norm"] == 0  # by which `runs.health` knows it


@pytest.mark.slow
def test_ppo_stops_at_the_target_divergence():
    config = small(unroll_length=16, epochs=8, learning_rate=0.01)
    agent, state, batch = real_batch(config)
    free, _ = jax.jit(agent.learner.learn)(state, batch, KEY)
    strict = dataclasses.replace(config, target_kl=1e-4).make(SPEC)
    held, _ = jax.jit(strict.learner.learn)(state, batch, KEY)
    distance = lambda s: optax.tree.norm(optax.tree.sub(s.params, state.params))
    assert 0 < distance(held) < distance(free) / 2
    # No step is taken on a minibatch that shows too much divergence.
    logits = lambda s: jax.vmap(agent.learner.network.unroll, (None, 0))(s.params, batch).policy
    kl = optax.losses.kl_divergence(
        jax.nn.log_softmax(logits(held).logits), jax.nn.softmax(logits(state).logits)
    )
    assert kl.mean() < 0.01


@pytest.mark.slow
def test_ppo_takes_no_step_after_the_first_that_diverges():
    kls = []

    class Telling(ppo.PPO):
        def batch_loss(self, *args):
            loss, metrics = super().batch_loss(*args)
            jax.debug.callback(lambda kl: kls.append(float(kl)), metrics["kl"], ordered=True)
            return loss, metrics

    config = small(unroll_length=64, minibatches=8, epochs=8, learning_rate=5e-3, target_kl=0.004)
    agent, state, batch = real_batch(config)
    learner = Telling(agent.learner.network, agent.learner.optimizer, config)
    after, metrics = jax.jit(learner.update)(state, batch, KEY)
    jax.effects_barrier()
    taken = int(np.argmax(np.array(kls) > config.target_kl))
    assert after.updates - state.updates == taken > 0
    assert min(kls[taken:]) < config.target_kl  # where a step was taken once more
    assert metrics["update_norm"] > 0


def test_ppo_initial_policy_is_near_uniform_and_weights_are_orthogonal():
    learner = small(backbone=MLP((16, 8))).make(SPEC).learner

    @jax.jit
    def initial():
        params = learner.init_params(KEY)
        return params, learner.network.apply(params, jnp.ones(4)).policy.entropy()

    params, entropy = jax.device_get(initial())
    for name, module in params.items():
        gain = 0.01 if name.startswith("policy/") else 1.0 if name.startswith("value/") else 2**0.5
        w = np.asarray(module["w"])
        gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        np.testing.assert_allclose(gram, gain**2 * np.eye(len(gram)), atol=1e-5)
        np.testing.assert_array_equal(module["b"], 0)
    assert entropy == pytest.approx(np.log(2), rel=0.01)


def test_ppo_acts_in_continuous_spaces_within_the_bounds():
    actions = specs.BoundedArray((2,), np.float32, [-2, 0], [2, 1])
    spec = EnvironmentSpec(
        specs.Array((3,), np.float32), actions, specs.Array((), float), specs.Array((), float)
    )
    network = small(std=0.25).make(spec).learner.network
    policy = jax.jit(lambda: network.apply(network.init(KEY), jnp.ones(3)).policy)()
    np.testing.assert_allclose(policy.mean, [0.0, 0.5], atol=0.05)
    # A quarter of half the range.
    np.testing.assert_allclose(jnp.exp(policy.log_std), [0.5, 0.125], rtol=1e-6)
    with pytest.raises(SettingError, match="vector of real numbers"):
        small().make(spec._replace(actions=specs.BoundedArray((2, 2), np.float32, -1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [pytest.param(MLP((16,)), marks=pytest.mark.thorough), GRU(MLP((8,)), 8)],
    ids=["MLP", "GRU"],
)
def test_ppo_host_and_device_agree(backbone):
    config = small(backbone=backbone, unroll_length=16)
    last = {}
    for trainer in (HostTrainer(num_envs=4), DeviceTrainer(num_envs=4)):
        *_, progress = trainer.train(config, "jax:CartPole-v1", seed=3, steps=640)
        last[trainer] = progress.updates, jax.device_get(progress.params)
    (updates, ours), (theirs_updates, theirs) = last.values()
    assert updates == theirs_updates > 8
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), ours, theirs)


@pytest.mark.slow
@pytest.mark.exact  # compiled for speed it takes a third of the time
def test_ppo_with_memory_learns_what_it_cannot_without():
    returns = {}
    for backbone in (GRU(), MLP()):
        config = small(backbone=backbone, unroll_length=32, learning_rate=1e-3)
        trainer = DeviceTrainer(num_envs=16)
        *_, last = trainer.train(config, "jax:Memory", steps=60_000, report_period=20_000)
        returns[type(backbone)] = last.returns.mean()
    assert returns[GRU] > 0.9
    assert abs(returns[MLP]) < 0.2


def test_ppo_equal_advantages_teach_nothing_and_stay_finite():
    advantage, weight = np.full((3, 5), 0.1, np.float32), np.ones((3, 5), np.float32)
    weight[0, 0] = 0
    found = jax.jit(jax.vmap(standardise, axis_name="batch"))(advantage, weight)
    np.testing.assert_allclose(found, 0.0, atol=1e-3)


def test_ppo_advantages_are_standardised_over_real_steps_only():
    rng = np.random.default_rng(0)
    advantage, weight = rng.normal(size=(3, 5)).astype(np.float32), np.ones((3, 5), np.float32)
    weight[1, 2:4], advantage[1, 2:4] = 0, 1e6
    found = jax.jit(jax.vmap(standardise, axis_name="batch"))(advantage, weight)
    real = advantage[weight > 0].astype(np.float64)
    expected = (real - real.mean()) / real.std()
    np.testing.assert_allclose(np.asarray(found)[weight > 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_ppo_ratio_is_one_before_the_first_gradient_of_continuous_actions():
    place = Tabular(jax.tree.map(jnp.asarray, probes.match()), continuous=True)
    agent, state, batch = real_batch(small(unroll_length=16), environment=place)
    batch = batch.masked()
    for term, own in zip(agent.learner.terms, state.terms, strict=True):
        batch, _, _ = term.prepare(state.params, own, batch)
    unroll = lambda x: agent.learner.network.unroll(state.params, x).policy.log_prob(x.action)
    again = jax.vmap(unroll)(jax.vmap(lambda x: agent.learner.samples(state.params, x))(batch))
    difference = np.where(batch.weight > 0, again - batch.extras["log_prob"], 0.0)
    assert np.abs(np.expm1(difference)).max() < 1e-5
