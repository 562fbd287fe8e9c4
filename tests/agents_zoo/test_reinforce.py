"""REINFORCE: the gradient by enumeration, the loss by hand, and every setting at work."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dm_env import StepType, TimeStep, specs

from agents_zoo import reinforce
from rlws.learner import LearnerState
from rlws.networks import MLP, Backbone
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec, Row, Trajectory

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST
KEY = jax.random.key(0)
SGD = optax.sgd(1.0)


class Table(Backbone):
    """A state for a feature: the heads on it are tables."""

    def __call__(self, observation):
        return observation


def spec_of(states=5, max_episode_steps=10):
    scalar = specs.Array((), np.float32)
    return EnvironmentSpec(
        specs.DiscreteArray(states), specs.DiscreteArray(2), scalar, scalar, max_episode_steps
    )


PLAIN = {
    "backbone": Table(),
    "discount": 1.0,
    "baseline": "none",
    "value_steps": 1,
    "entropy_cost": 0.0,
    "normalise_advantages": False,
}


def make(spec=None, learner_class=None, optimizer=SGD, **settings):
    """Returns the learner of a tabular agent with plain settings and gradient descent of rate 1."""
    config = reinforce.Config(**(PLAIN | settings))
    learner = config.make(spec or spec_of()).learner
    return (learner_class or type(learner))(learner.network, optimizer, learner.config)


# --- Enumeration. State 0: action 0 ends with reward 1; action 1 gives 1/2 and leads to state 1,
# where action 0 ends with 2 and action 1 with -1. State 2 is the end.

PATHS = ([0], [1, 0], [1, 1])
REWARDS = ([1.0], [0.5, 2.0], [0.5, -1.0])


def path(actions, rewards):
    """Returns a path of the process as a trajectory of 2 steps, the missing one padded with NaN."""
    steps = len(actions)
    step_type = [F, *[M] * (steps - 1), L, *[F] * (2 - steps)]
    states = [0, 1][:steps] + [2] * (3 - steps)
    timestep = TimeStep(
        np.array(step_type, np.int32),
        np.array([0, *rewards, *[np.nan] * (2 - steps)], float),
        np.array([1, *[1] * (steps - 1), 0, *[np.nan] * (2 - steps)], float),
        np.array(states, np.int32),
    )
    rows = Row(timestep, np.array([*actions, 0, 0][:3], np.int32))
    return Trajectory.from_rows(rows, np.array([1.0, steps > 1], float))


def state_with(learner, params, extra):
    return LearnerState(params, learner.optimizer.init(params), extra, np.int32(0))


def objective(network, params, discount):
    """Returns the expected discounted return, and the probabilities of the paths."""
    (a, b), (c, d) = jax.nn.softmax(network.apply(params, jnp.arange(2)).policy.logits)
    probabilities = jnp.array([a, b * c, b * d])
    returns = jnp.array([1.0, 0.5 + discount * 2, 0.5 - discount])
    return probabilities @ returns, probabilities


def expected_and_true_gradient(extra=0.0, learner_class=None, **settings):
    """Returns sum_tau p(tau) (what the update adds to params) and the gradient of the objective."""
    learner = make(spec_of(3, 2), learner_class, **settings)
    names, tree = jax.tree.flatten(jax.eval_shape(learner.network.init, KEY))
    random = np.random.default_rng(1)
    params = tree.unflatten([random.normal(size=leaf.shape) for leaf in names])
    state = state_with(learner, params, np.float64(extra))
    batches = [path(*both) for both in zip(PATHS, REWARDS, strict=True)]
    batches = jax.tree.map(lambda *x: np.stack(x)[:, None], *batches)  # [3, 1, T]: each alone

    @jax.jit
    def both(state):
        updated, _ = jax.vmap(learner.learn, (None, 0, None))(state, batches, KEY)
        gained = jax.tree.map(lambda new, old: new - old[None], updated.params, state.params)
        value = lambda params: objective(learner.network, params, learner.config.discount)
        true, probabilities = jax.grad(value, has_aux=True)(state.params)
        return jax.tree.map(lambda x: jnp.tensordot(probabilities, x, 1), gained), true

    def flat(tree):  # the policy alone: the baseline has a loss of its own
        return np.concatenate([np.ravel(leaf) for leaf in tree["policy/linear"].values()])

    found, true = both(state)
    assert found["policy/linear"]["w"].dtype == jnp.float64
    return flat(found), flat(true)


EXACT = {
    "none": {},
    "moving average 3": {"baseline": "moving_average", "extra": 3.0},
    "moving average -40": {"baseline": "moving_average", "extra": -40.0},
    "value": {"baseline": "value"},
    "discounted": {"discount": 0.7, "discounted_gradient": True},
    "discounted, moving average": {
        "discount": 0.7, "discounted_gradient": True, "baseline": "moving_average", "extra": 5.0,
    },
    "discounted, value": {"discount": 0.3, "discounted_gradient": True, "baseline": "value"},
}  # fmt: skip


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("settings", EXACT.values(), ids=EXACT)
def test_reinforce_expected_update_is_the_gradient_of_the_return(x64, settings):
    expected, true = expected_and_true_gradient(**settings)
    assert np.abs(true).max() > 0.1
    np.testing.assert_allclose(expected, true, atol=1e-12)


def test_reinforce_discounts_need_the_discounted_gradient(x64):
    expected, true = expected_and_true_gradient(discount=0.7)
    assert np.abs(expected - true).max() > 1e-2


class PerStep(reinforce.Reinforce):
    """Divides by the length of the episode."""

    def loss(self, params, trajectory, key, state):
        loss, metrics = super().loss(params, trajectory, key, state)
        return loss / trajectory.weight.sum(), metrics


class Fitted(reinforce.Reinforce):
    """Has a baseline that has seen the return it is compared with."""

    def loss(self, params, trajectory, key, state):
        seen = jnp.sum(trajectory.weight * trajectory.reward)
        return super().loss(params, trajectory, key, state._replace(extra=0.5 * seen))


@pytest.mark.parametrize("wrong", [PerStep, Fitted])
def test_reinforce_enumeration_has_teeth(x64, wrong):
    expected, true = expected_and_true_gradient(learner_class=wrong, baseline="moving_average")
    assert np.abs(expected - true).max() > 1e-2


# --- Loss by hand. The policy gives action 1 in every state with probability 3/4.


def state_of(learner, values=(0.0, 0, 0, 0, 0), extra=0.0):
    params = {"policy/linear": {"w": np.zeros((5, 2)), "b": np.log([1.0, 3.0])}}
    if learner.config.baseline == "value":
        params["value/linear"] = {"w": np.array(values)[:, None], "b": np.zeros(1)}
    params = jax.tree.map(np.float32, params)
    expected = jax.tree.map(np.shape, jax.eval_shape(learner.network.init, KEY))
    assert jax.tree.map(np.shape, params) == expected
    return state_with(learner, params, np.float32(extra))


def trajectory(step_type, discount, reward, states, action):
    timestep = TimeStep(
        np.array(step_type, np.int32),
        np.array([0, *reward], np.float32),
        np.array([1, *discount], np.float32),
        np.array(states, np.int32),
    )
    return Trajectory.from_rows(Row(timestep, np.array([*action, 0], np.int32)), np.float32(1))


THREE = trajectory([F, M, M, L], [1, 1, 0], [1, 2, 4], [0, 1, 2, 3], [0, 1, 1])
RARE, OFTEN = np.log(4), np.log(4 / 3)  # -log pi of actions 0 and 1
ENTROPY = 0.25 * RARE + 0.75 * OFTEN

# name: (settings, values, extra, loss). Returns at discount 1/2: 3, 4, 4.
BY_HAND = {
    "none": ({}, None, 0, 3 * RARE + 8 * OFTEN),
    "entropy": ({"entropy_cost": 0.1}, None, 0, 3 * RARE + 8 * OFTEN - 0.3 * ENTROPY),
    "moving average": ({"baseline": "moving_average"}, None, 2, RARE + 4 * OFTEN),
    "value": (
        {"baseline": "value"}, (1, 2, 6, 9, 9), 7,
        2 * RARE + (2 - 2) * OFTEN + (4 + 4 + 4) / 2,
    ),
    "discounted gradient": (
        {"discounted_gradient": True, "entropy_cost": 0.1}, None, 0,
        3 * RARE + (4 / 2 + 4 / 4) * OFTEN - 0.1 * 1.75 * ENTROPY,
    ),
    "normalised": (
        {"normalise_advantages": True}, None, 0,
        (-np.sqrt(2) * RARE + 2 * np.sqrt(0.5) * OFTEN),
    ),
}  # fmt: skip


def stacked(*trajectories):
    return jax.tree.map(lambda *x: np.stack(x), *trajectories)


@pytest.mark.parametrize("case", BY_HAND.values(), ids=BY_HAND)
def test_reinforce_loss_equals_hand_worked_numbers(case):
    """Of one trajectory, which with normalisation is a batch of one, and of two."""
    settings, values, extra, expected = case
    learner = make(discount=0.5, **settings)
    state = state_of(learner, values, extra)
    vmapped = jax.vmap(learner.loss, (None, 0, None, None), axis_name="batch")
    alone = vmapped if learner.config.normalise_advantages else learner.loss

    @jax.jit
    def losses(one, two):
        return [f(state.params, x, KEY, state)[0] for f, x in ((alone, one), (vmapped, two))]

    one = stacked(THREE) if learner.config.normalise_advantages else THREE
    found, both = losses(one, stacked(THREE, THREE))
    np.testing.assert_allclose(np.squeeze(found), expected, rtol=1e-5)
    np.testing.assert_allclose(both, [expected] * 2, rtol=1e-5)


def test_reinforce_loss_needs_no_compilation():
    settings, values, extra, expected = BY_HAND["value"]
    learner = make(discount=0.5, **settings)
    state = state_of(learner, values, extra)
    found = learner.loss(state.params, jax.tree.map(jnp.asarray, THREE), KEY, state)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_reinforce_metrics_equal_hand_worked_numbers():
    learner = make(discount=0.5, baseline="value", entropy_cost=0.1)
    state = state_of(learner, (1, 2, 6, 9, 9))
    batch = stacked(THREE)
    _, metrics = jax.jit(learner.batch_loss)(state.params, batch, KEY, state)
    expected = {
        "policy_loss": 2 * RARE,
        "entropy": ENTROPY,
        "return_to_go": 11 / 3,
        "value_loss": 6,
        "explained_variance": -1,  # cut
        "loss": 2 * RARE + 6 - 0.3 * ENTROPY,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(("discount", "returns"), [(0, [3, 4, 4]), (1, [5, 8, 12])])
def test_reinforce_gradients_of_policy_and_value_equal_hand_worked_numbers(discount, returns):
    learner = make(discount=0.5, baseline="value")
    values = np.array([1, 2, 6, 16, 9])  # truncated, the return continues with 16
    state = state_of(learner, values)
    episode = THREE._replace(discount=np.float32([1, 1, discount]))
    loss = lambda params: learner.loss(params, episode, KEY, state)[0]
    grads = jax.jit(jax.grad(loss))(state.params)
    advantage = np.array(returns) - values[:3]
    # V - G, and nothing through the bootstrap value or the baseline.
    np.testing.assert_allclose(grads["value/linear"]["w"][:, 0], [*-advantage, 0, 0], atol=1e-5)
    # The gradient of -log pi(a) A is A (pi - onehot(a)).
    policy = advantage[:, None] * (np.array([[0.25, 0.75]]) - [[1, 0], [0, 1], [0, 1]])
    np.testing.assert_allclose(grads["policy/linear"]["w"][:3], policy, atol=1e-5)
    np.testing.assert_array_equal(grads["policy/linear"]["w"][3:], 0)


# --- Ends of episodes.


@functools.cache
def return_to_go(**settings):
    """Returns the compiled returns of a learner with these settings, of trajectory and values."""
    learner = make(**{"baseline": "value", "discount": 0.9, **settings})
    of = lambda x, state: learner.loss(state.params, x, KEY, state)[1]["return_to_go"]
    compiled = jax.jit(of)
    return lambda x, values: np.asarray(compiled(x, state_of(learner, values)))


def returns(trajectory, values, **settings):
    return return_to_go(**settings)(trajectory, values)


V = (1.0, 2.0, 3.0, 10.0, 100.0)


@pytest.mark.parametrize(
    ("discount", "settings", "expected"),
    [
        (1, {}, [1 + 0.9 + 0.81 + 0.729 * 10, 1 + 0.9 + 0.81 * 10, 1 + 0.9 * 10]),
        (0, {}, [1 + 0.9 + 0.81, 1 + 0.9, 1]),
        (1, {"baseline": "none"}, [1 + 0.9 + 0.81, 1 + 0.9, 1]),
        (1, {"baseline": "moving_average"}, [1 + 0.9 + 0.81, 1 + 0.9, 1]),
    ],
    ids=["truncated", "terminated", "truncated, none", "truncated, moving average"],
)
def test_reinforce_bootstraps_truncated_episodes_only(discount, settings, expected):
    episode = trajectory([F, M, M, L], [1, 1, discount], [1, 1, 1], [0, 1, 2, 3], [0, 0, 0])
    np.testing.assert_allclose(returns(episode, V, **settings), expected, rtol=1e-6)


def test_reinforce_continues_an_episode_cut_without_a_last_row():
    cut = trajectory([F, M, M, M], [1, 1, 1], [1, 1, 1], [0, 1, 2, 3], [0, 0, 0])
    np.testing.assert_allclose(returns(cut, V)[2], 1 + 0.9 * 10, rtol=1e-6)


@pytest.mark.parametrize(("discount", "expected"), [(1, [10, 10]), (0, [1.9, 1])])
def test_reinforce_returns_do_not_leak_across_an_end(discount, expected):
    # Two steps that end in state 3, the ignored step to state 4, and one more step.
    spans = lambda reward: trajectory(
        [F, M, L, F, L], [1, discount, 1, 0], [1, 1, 0, reward], [0, 1, 3, 4, 2], [0, 0, 0, 0]
    )
    for reward in (5.0, 5000.0):
        found = returns(spans(reward), V)
        np.testing.assert_allclose(found[:2], expected, rtol=1e-6)
        assert found[3] == reward


def test_reinforce_ignores_the_step_after_last():
    learner = make(baseline="value", discount=0.9)
    state = state_of(learner, V)
    both = trajectory([F, L, F, L], [0, 1, 0], [1, 0, 1], [0, 3, 0, 3], [1, 0, 1])
    one = trajectory([F, L], [0], [1], [0, 3], [1])
    loss = jax.jit(lambda x: learner.loss(state.params, x, KEY, state)[0])
    assert loss(both) == pytest.approx(2 * float(loss(one)), rel=1e-6)


# --- Batches.


def batch_of(rewards, lengths, steps=4):
    """Returns episodes of these lengths with constant rewards, padded with NaN."""
    episodes = []
    for reward, length in zip(rewards, lengths, strict=True):
        x = trajectory(
            [F] + [M] * (length - 1) + [L], [1] * (length - 1) + [0], [reward] * length,
            np.arange(length + 1) % 5, np.arange(length) % 2,
        )  # fmt: skip
        grow = lambda x, n=length: np.pad(
            x, [(0, steps - n)], constant_values=np.nan if x.dtype == np.float32 else 1
        )
        padded = jax.tree.map(grow, x)
        episodes.append(padded._replace(weight=np.nan_to_num(padded.weight)))
    return stacked(*episodes)


def compute(learner, batch, state=None):
    state = state or state_of(learner, V)
    loss = lambda params, batch: learner.batch_loss(params, batch.masked(), KEY, state)
    return jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params, batch))


def test_reinforce_ignores_padding():
    learner = make(baseline="value", normalise_advantages=True, entropy_cost=0.1, discount=0.9)
    (loss, metrics), grads = compute(learner, batch_of([1.0, 2, -1], [4, 1, 3]))
    more = batch_of([1.0, 2, -1], [4, 1, 3], steps=7)
    bad = lambda x: np.full_like(x[:1], np.nan if x.dtype == np.float32 else 1)
    nothing = jax.tree.map(bad, more)._replace(weight=np.zeros((1, 7), np.float32))
    more = jax.tree.map(lambda x, y: np.concatenate([x, y]), more, nothing)
    (padded_loss, padded), padded_grads = compute(learner, more)
    assert np.isfinite(loss)
    np.testing.assert_allclose(loss, padded_loss, rtol=1e-5)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], padded[name], rtol=1e-5, err_msg=name)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, grads, padded_grads)


def test_reinforce_normalises_advantages_over_real_steps():
    learner = make(normalise_advantages=True)
    batch = batch_of([1.0, 3], [2, 1])
    advantages = np.array([2.0, 1, 3])  # of actions 0, 1, 0
    advantages = (advantages - advantages.mean()) / advantages.std()
    (loss, _), _ = compute(learner, batch)
    np.testing.assert_allclose(loss, advantages @ [RARE, OFTEN, RARE] / 2, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["none", "moving_average", "value"])
def test_reinforce_of_equal_advantages_is_finite(baseline):
    learner = make(normalise_advantages=True, baseline=baseline)
    (loss, _), grads = compute(learner, batch_of([0.1] * 3, [1] * 3))
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_reinforce_moving_average_follows_its_decay_and_lags_the_update():
    learner = make(baseline="moving_average", baseline_decay=0.75, optimizer=optax.sgd(0.0))
    state, learn = state_of(learner), jax.jit(learner.learn)
    assert jax.jit(learner.init)(KEY).extra == 0
    # Mean returns to go: 8, then (0, then 3 * (2 + 1) / 2 and 1) over 3 steps, then -4.
    average = 0.0
    for i, (rewards, lengths, mean) in enumerate(
        [([8.0], [1], 8), ([3.0, 1], [2, 1], (6 + 3 + 1) / 3), ([-4.0], [1], -4)]
    ):
        before = state.extra
        state, metrics = learn(state, batch_of(rewards, lengths), KEY)
        assert metrics["return_to_go"] == pytest.approx(mean)
        if lengths == [1]:
            policy_loss = (mean - float(before)) * RARE
            assert metrics["policy_loss"] == pytest.approx(policy_loss, rel=1e-5)
        average = mean if i == 0 else 0.75 * average + 0.25 * mean
        assert state.extra == pytest.approx(average, rel=1e-6)
    assert state.updates == 3


# --- Settings.

FLOATS = {
    "learning_rate": 0.01,
    "discount": 0.5,
    "baseline_decay": 0.5,
    "value_learning_rate": 0.02,
    "entropy_cost": 0.3,
}
OTHERS = {
    "backbone": MLP((3,)),
    "discounted_gradient": True,
    "baseline": "none",
    "normalise_advantages": False,
    "episodes_per_update": 7,
    "max_episode_length": 5,
    "value_steps": 2,
}
SMALL = reinforce.Config(backbone=MLP((2,)), value_steps=1)
SPEC = spec_of()


def outcome(config):
    """Returns parameters and moving average after two updates."""
    learner = config.make(SPEC).learner
    state = learner.init(KEY)
    for rewards in ([1.0, 2, -1], [4.0, 0, 1]):
        batch = jax.tree.map(jnp.asarray, batch_of(rewards, [4, 1, 3]))
        state, _ = learner.learn(state, batch, KEY)
    return state.params, state.extra


@pytest.fixture(scope="module")
def sweep():
    """The outcomes of SMALL, and of SMALL with each float setting changed, by one vmap."""
    rows = [dataclasses.replace(SMALL, **{name: value}) for name, value in FLOATS.items()]
    table = {name: np.array([getattr(c, name) for c in (SMALL, *rows)]) for name in FLOATS}
    member = lambda settings: outcome(dataclasses.replace(SMALL, **settings))
    return jax.device_get(jax.jit(jax.vmap(member))(jax.tree.map(jnp.float32, table)))


def differs(one, other):
    same = lambda x, y: np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=1e-6, atol=1e-8)
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(leaves) != len(others) or not all(map(same, leaves, others))


def test_reinforce_settings_are_all_tested():
    names = {field.name for field in dataclasses.fields(reinforce.Config)}
    assert names == FLOATS.keys() | OTHERS.keys()


@pytest.mark.parametrize("name", FLOATS)
def test_reinforce_float_settings_change_the_update(sweep, name):
    index = list(FLOATS).index(name) + 1
    assert differs(*(jax.tree.map(lambda x, i=i: x[i], sweep) for i in (0, index)))


@pytest.mark.slow
@pytest.mark.parametrize("index", [1, 3])
def test_reinforce_swept_update_is_its_own_single_update(sweep, index):
    changed = [{}, *({name: value} for name, value in FLOATS.items())][index]
    single = jax.jit(lambda: outcome(dataclasses.replace(SMALL, **changed)))()
    member = jax.tree.map(lambda x: x[index], sweep)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, member, single)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["discounted_gradient", "baseline", "normalise_advantages"])
def test_reinforce_choices_change_the_update(sweep, name):
    config = dataclasses.replace(SMALL, **{name: OTHERS[name]})
    base = jax.tree.map(lambda x: x[0], sweep)
    policy = lambda outcome: outcome[0]["policy/linear"]
    assert differs(policy(jax.jit(outcome, static_argnums=0)(config)), policy(base))


def shapes_of(agent):
    return jax.eval_shape(agent.actor.network.init, KEY)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("episodes_per_update", lambda agent: agent.adder.episodes),
        ("max_episode_length", lambda agent: agent.adder.max_length),
        ("backbone", lambda agent: shapes_of(agent)["policy_backbone/linear"]["b"].size),
    ],
)
def test_reinforce_settings_reach_the_agent(name, read):
    expected = 3 if name == "backbone" else OTHERS[name]
    assert read(dataclasses.replace(SMALL, **{name: OTHERS[name]}).make(SPEC)) == expected
    assert read(SMALL.make(SPEC)) != expected


def test_reinforce_makes_an_agent_of_one_network():
    agent = SMALL.make(SPEC)
    assert agent.adder.episodes == 8
    assert agent.adder.max_length == 10  # the environment's time limit
    assert agent.actor.network is agent.learner.network is agent.evaluator.network
    assert not agent.actor.greedy
    assert agent.evaluator.greedy


def test_reinforce_refuses_environments_it_cannot_learn():
    with pytest.raises(SettingError, match="set max_episode_length, for example to 1000"):
        SMALL.make(SPEC._replace(max_episode_steps=None))
    limited = dataclasses.replace(SMALL, max_episode_length=8)
    assert limited.make(SPEC._replace(max_episode_steps=None)).adder.max_length == 8
    with pytest.raises(SettingError, match="needs actions that are a vector of real numbers, got"):
        SMALL.make(SPEC._replace(actions=specs.BoundedArray((2, 2), np.float32, -1, 1)))


def test_reinforce_takes_real_actions():
    """The loss of two steps of a normal policy, by hand."""
    learner = make(spec_of()._replace(actions=specs.Array((1,), np.float32)), entropy_cost=0.1)
    actions = np.array([[0.5], [-2.0]], np.float32)
    whole = path([0, 0], [0.5, 2.0])._replace(action=actions)

    @jax.jit
    def ask(key):
        state = learner.init(key)
        found, _ = learner.loss(state.params, whole, key, state)
        return learner.network.unroll(state.params, whole).policy, found

    policy, found = ask(KEY)
    mean, log_std = np.float64(policy.mean)[:2, 0], np.float64(policy.log_std)[:2, 0]
    log_prob = -0.5 * ((actions[:, 0] - mean) / np.exp(log_std)) ** 2 - log_std
    log_prob -= 0.5 * np.log(2 * np.pi)
    entropy = 0.5 + 0.5 * np.log(2 * np.pi) + log_std
    expected = -np.sum(log_prob * [2.5, 2.0]) - 0.1 * np.sum(entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_reinforce_policy_and_value_learn_with_adam_at_their_own_rates():
    # The first step of Adam is the learning rate times the sign of the gradient.
    config = dataclasses.replace(SMALL, backbone=Table())
    learner = config.make(SPEC).learner
    state = state_of(learner, V)
    updated, _ = jax.jit(learner.learn)(state, batch_of([1.0, 2, -1], [4, 1, 3]), KEY)
    moved = jax.tree.map(lambda new, old: np.abs(new - old), updated.params, state.params)
    for head, rate in [("policy", config.learning_rate), ("value", config.value_learning_rate)]:
        np.testing.assert_allclose(moved[f"{head}/linear"]["w"][:4], rate, rtol=1e-2)
        np.testing.assert_array_equal(moved[f"{head}/linear"]["w"][4], 0)  # never acted in


@pytest.mark.slow
def test_reinforce_fits_its_value_alone_some_more():
    @jax.jit
    def after():
        once, thrice = (
            dataclasses.replace(SMALL, value_steps=n).make(SPEC).learner for n in (1, 3)
        )
        state = once.init(KEY)
        batch = jax.tree.map(jnp.asarray, batch_of([1.0, 2, -1], [4, 1, 3]))
        by_hand, first = state, None
        for _ in range(3):
            by_hand, _ = once.learn(by_hand, batch, KEY)
            first = first or by_hand
        return thrice.learn(state, batch, KEY)[0], first, by_hand

    found, first, by_hand = after()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    for name, leaves in found.params.items():
        # The value's gradient does not see the policy, so it may have moved on meanwhile.
        jax.tree.map(close, leaves, (by_hand if "value" in name else first).params[name])
    assert (found.updates, found.extra) == (1, first.extra)
    for label, expected in (("policy", first), ("value", by_hand)):
        inner = (x.opt_state.inner_states[label] for x in (found, expected))
        jax.tree.map(close, *map(jax.tree.leaves, inner))


def test_reinforce_reports_the_value_of_each_step_beside_its_return():
    learner = make(baseline="value")
    state, batch = state_of(learner, V), batch_of([1.0, 2, -1], [4, 1, 3])
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), batch)
    metrics, values = jax.jit(
        lambda: (
            learner.loss(state.params, one, KEY, state)[1],
            learner.network.unroll(state.params, one).value,
        )
    )()
    assert len(set(values.tolist())) > 1
    np.testing.assert_array_equal(metrics["value"], values[:-1])


def test_reinforce_values_and_policy_share_nothing():
    names = {name.split("/")[0] for name in shapes_of(SMALL.make(SPEC))}
    assert names == {"policy_backbone", "policy", "value_backbone", "value"}
