"""Prioritised replay: probabilities and weights worked by hand, and priorities that stay put."""

import functools
import itertools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType

from rlws.adders import PrioritisedReplay, sum_tree
from rlws.settings import SettingError
from rlws.types import Row

KEY = jax.random.key(0)


def stream(num_envs, rows, period=None):
    """Returns rows [T, B] of episodes of `period` rows, each action a name of its own."""
    period = period or 10**6
    t = np.broadcast_to(np.arange(rows)[:, None], (rows, num_envs))
    place = (t + np.arange(num_envs)) % period
    step_type = np.where(place == 0, StepType.FIRST, StepType.MID)
    step_type = np.where(place == period - 1, StepType.LAST, step_type).astype(np.int32)
    name = (t * num_envs + np.arange(num_envs)).astype(np.int32)
    zero = np.zeros(t.shape, np.float32)
    return Row(dm_env.TimeStep(step_type, zero, zero + 1, np.float32(name)), name, {})


@functools.cache
def compiled(adder):
    methods = adder.add, adder.sample, adder.feedback, adder.gather
    return *map(jax.jit, methods), jax.jit(adder.init, static_argnums=1), jax.jit(adder.metrics)


def states(adder, rows, state=None, begin=0):
    """Yields the rows added so far and the state after each block; send a state to replace it."""
    num_envs = rows.action.shape[1]
    if state is None:
        state = compiled(adder)[4](jax.tree.map(lambda x: x[0, 0], rows), num_envs)
    length = adder.schedule(num_envs).block_length
    for t in range(begin, len(rows.action) - length, length):
        block = jax.tree.map(lambda x, t=t: x[t : t + length], rows)
        timestep = jax.tree.map(lambda x, t=t: x[t + length], rows.timestep)
        state = compiled(adder)[0](state, block, length, timestep)
        state = (yield t + length, state) or state


def state_after(adder, rows, *args):
    return list(states(adder, rows, *args))[-1][1]


def priorities(adder, state):
    """Returns by name the priority, to the power of the exponent, of all that can be sampled."""
    size = len(state.replay.starts)
    leaves = np.asarray(state.tree[0])
    names = np.asarray(compiled(adder)[3](state.replay, np.arange(size)).action[:, 0])
    alive = np.arange(state.replay.tail, state.replay.begun) % size
    dead = np.ones(len(leaves), bool)
    dead[alive] = False
    assert not leaves[dead].any()  # overwritten or not there yet: probability 0
    return dict(zip(names[alive].tolist(), leaves[alive].tolist(), strict=True))


def check_sums(tree):
    for level, sums in itertools.pairwise(tree):
        expected = np.asarray(level).reshape(-1, sum_tree.WIDTH).sum(1)
        np.testing.assert_allclose(sums[: len(expected)], expected, rtol=1e-6)
        assert not np.any(sums[len(expected) :])


@functools.cache
def drawn(batch_size, count):
    """Returns a program of exponent and beta: a batch for each of `count` keys.

    They are drawn from four steps of priority 1, 1, 2 and 4; besides, it returns the batch before.
    """
    rows = stream(1, 5)
    following = jax.tree.map(lambda x: x[1:], rows.timestep)

    def program(exponent, beta):
        settings = {"epsilon": 1e-20, "exponent": exponent, "beta": beta}
        adder = PrioritisedReplay(4, batch_size, 1, **settings)

        def add(state, inputs):
            row, timestep = inputs
            return adder.add(state, jax.tree.map(lambda x: x[None], row), 1, timestep), None

        state = adder.init(jax.tree.map(lambda x: x[0, 0], rows), 1)
        inputs = jax.tree.map(lambda x: x[:4], rows), following
        state, _ = jax.lax.scan(add, state, inputs)
        state, before = adder.sample(state, KEY)
        state = adder.feedback(state, jnp.array([1.0, 1, 2, 4])[before.action[:, 0]])
        keys = jax.random.split(jax.random.key(1), count)
        return before, jax.vmap(lambda key: adder.sample(state, key)[1])(keys)

    return jax.jit(program)


def by_hand(exponent, beta, batch_size=800, count=1):
    """Returns the names of what was drawn, and their weights, [count, batch]."""
    before, batches = jax.device_get(drawn(batch_size, count)(exponent, beta))
    # Equal priorities so far and a share of the total for each draw: each is there as often.
    if batch_size % 4 == 0:
        np.testing.assert_array_equal(np.bincount(before.action[:, 0]), [batch_size // 4] * 4)
    np.testing.assert_array_equal(before.weight, 1)
    return batches.action[..., 0], batches.weight[..., 0]


def test_prioritised_probabilities_and_weights_equal_hand_worked_numbers():
    (item,), (weight,) = by_hand(exponent=1.0, beta=1.0)
    counts = np.bincount(item)
    np.testing.assert_allclose(counts, 800 * np.array([1 / 8, 1 / 8, 1 / 4, 1 / 2]), atol=1)
    np.testing.assert_allclose(weight, np.array([1, 1, 0.5, 0.25])[item], rtol=1e-6)


def test_prioritised_weights_undo_the_probabilities():
    (item,), (weight,) = by_hand(exponent=1.0, beta=1.0)
    g = np.array([3.0, -1, 5, 7])
    # sum_i P_i w_i g_i is the mean of g, but for the largest weight, (N P_0)^-1 = 2.
    np.testing.assert_allclose(np.mean(weight * g[item]), g.mean() / 2, rtol=2e-2)
    probability = np.array([1, 1, 2, 4]) / 8
    weights = np.array([weight[item == i][0] for i in range(4)])
    np.testing.assert_allclose(probability * weights @ g, g.mean() / 2, rtol=1e-6)


@pytest.mark.parametrize(("exponent", "beta"), [(0.5, 0.4), (2.0, 1.0), (0.6, 0.0)])
def test_prioritised_exponents_follow_the_formula(exponent, beta):
    (item,), (found,) = by_hand(exponent, beta)
    scaled = np.array([1.0, 1, 2, 4]) ** exponent
    np.testing.assert_allclose(np.bincount(item), 800 * scaled / scaled.sum(), atol=1.5)
    weight = (4 * scaled / scaled.sum()) ** -beta
    np.testing.assert_allclose(found, (weight / weight[0])[item], rtol=1e-5)


def test_prioritised_largest_weight_is_that_of_the_batch():
    # Of four draws the last two are always the fourth item, one the third, one of the others.
    items, weights = by_hand(1.0, 1.0, batch_size=4, count=4000)
    assert (items[:, 1:] == [2, 3, 3]).all()
    np.testing.assert_allclose(weights, [[1, 0.5, 0.25, 0.25]] * 4000, rtol=1e-6)
    alone, weight = by_hand(1.0, 1.0, batch_size=1, count=20)
    assert set(alone.ravel().tolist()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(weight, 1)


def test_prioritised_exponent_0_is_uniform():
    (item,), (weight,) = by_hand(exponent=0.0, beta=1.0)
    np.testing.assert_array_equal(np.bincount(item), [200] * 4)
    np.testing.assert_array_equal(weight, 1)


def test_prioritised_draws_are_random_within_their_shares():
    items, _ = by_hand(exponent=1.0, beta=0.4, batch_size=4, count=4000)
    counts = np.bincount(items.ravel(), minlength=4)
    np.testing.assert_array_equal(counts[2:], [4000, 8000])
    assert abs(counts[0] - 2000) < 5 * np.sqrt(4000 / 4)  # five deviations


def test_prioritised_new_items_enter_at_the_largest_priority_so_far():
    adder = PrioritisedReplay(6, 6, 1, exponent=0.5, epsilon=1e-20)
    rows = stream(1, 20)
    state = state_after(adder, jax.tree.map(lambda x: x[:4], rows))
    assert priorities(adder, state) == {0: 1, 1: 1, 2: 1}
    assert compiled(adder)[5](state)["largest_priority"] == 1
    state, batch = compiled(adder)[1](state, KEY)
    values = np.float32([0.25, 9, 4])  # of items 0, 1 and 2
    state = compiled(adder)[2](state, values[np.asarray(batch.action)[:, 0]])
    assert priorities(adder, state) == {0: 0.5, 1: 3, 2: 2}
    assert compiled(adder)[5](state)["largest_priority"] == 9
    state = state_after(adder, jax.tree.map(lambda x: x[:6], rows), state, 3)
    assert priorities(adder, state) == {0: 0.5, 1: 3, 2: 2, 3: 3, 4: 3}
    state, batch = compiled(adder)[1](state, KEY)
    state = compiled(adder)[2](state, np.full(6, 0.01))
    assert compiled(adder)[5](state)["largest_priority"] == 9  # so far, not now
    state = state_after(adder, rows, state, 5)
    found = priorities(adder, state)
    assert found == dict.fromkeys(range(13, 19), 3)  # those of old are gone


def test_prioritised_feedback_is_of_any_sign_and_never_0():
    adder = PrioritisedReplay(4, 4, 1, exponent=1.0, epsilon=0.125)
    state = state_after(adder, stream(1, 5))
    state, batch = compiled(adder)[1](state, KEY)
    assert np.asarray(batch.action)[:, 0].tolist() == [0, 1, 2, 3]
    state = compiled(adder)[2](state, np.array([0.0, -2, 3, -0.5]))
    assert priorities(adder, state) == {0: 0.125, 1: 2.125, 2: 3.125, 3: 0.625}


def test_prioritised_feedback_that_is_not_finite_is_passed_over():
    adder = PrioritisedReplay(4, 4, 1, exponent=1.0, epsilon=0.125)
    state = state_after(adder, stream(1, 5))
    state, _ = compiled(adder)[1](state, KEY)
    state = compiled(adder)[2](state, np.array([2.0, np.nan, np.inf, 0.5]))
    assert priorities(adder, state) == {0: 2.125, 1: 1, 2: 1, 3: 0.625}  # as they entered
    assert compiled(adder)[5](state)["largest_priority"] == 2.125


def test_prioritised_age_is_that_of_what_was_drawn():
    adder = PrioritisedReplay(8, 4, 1, period=2, exponent=1.0)
    for rows, state in states(adder, stream(2, 30)):
        after, batch = compiled(adder)[1](state, KEY)
        expected = 2 * rows - 2 * (
            np.asarray(batch.action)[:, 0] // 2
        )  # named by row and environment
        assert compiled(adder)[5](after)["replay_age"] == expected.mean()
        assert compiled(adder)[2](after, np.ones(4)).replay.age == expected.mean()


# name: (environments, settings)
RINGS = {
    "one environment": (1, {"capacity": 5, "batch_size": 3}),
    "two levels": (2, {"capacity": 70, "batch_size": 16, "period": 6}),
    "blocks longer than the ring": (1, {"capacity": 4, "batch_size": 2, "period": 7}),
    "n-step": (3, {"capacity": 20, "batch_size": 9, "period": 6, "n_step": 3}),
    "sequences": (2, {"capacity": 24, "batch_size": 6, "period": 4, "length": 4}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("num_envs", "settings"), RINGS.values(), ids=RINGS)
def test_prioritised_priorities_stay_with_their_trajectories(num_envs, settings):
    adder = PrioritisedReplay(min_size=1, exponent=0.7, **settings)
    rng = np.random.default_rng(5)
    rows = stream(num_envs, 160, period=6)
    model, highest, drawn = {}, 1.0, set()
    blocks = states(adder, rows)
    t, state = next(blocks)
    while True:
        held = priorities(adder, state)
        check_sums(state.tree)
        new = {name: highest**0.7 for name in held.keys() - model.keys()}
        assert min(new, default=10**9) > max(model, default=-1)
        model = {name: priority for name, priority in (model | new).items() if name in held}
        assert held == pytest.approx(model, rel=1e-5)
        np.testing.assert_allclose(sum_tree.total(state.tree), sum(held.values()), rtol=1e-5)
        for turn in range(2):
            if not held:
                break
            state, batch = compiled(adder)[1](state, jax.random.key(2 * t + turn))
            names = batch.action[:, 0].tolist()
            assert set(names) <= held.keys()
            drawn |= set(names)
            before = np.array([model[name] for name in names])
            weight = batch.weight.max(1)  # sequences may begin at a step of weight 0
            expected = (before / before.min()) ** -0.4
            np.testing.assert_allclose(weight, expected, rtol=1e-4)
            chosen = {name: float(rng.exponential()) * 3 for name in names}
            feedback = np.float32([chosen[name] for name in names])
            state = compiled(adder)[2](state, feedback)
            highest = max(highest, feedback.max() + 1e-6)
            model |= {name: (value + 1e-6) ** 0.7 for name, value in chosen.items()}
        try:
            t, state = blocks.send(state)
        except StopIteration:
            break
    assert len(drawn) > 2 * adder.capacity  # so the ring went round
    assert t > 150


@pytest.mark.parametrize("period", [None, 6], ids=["no ends", "ends"])
def test_prioritised_adding_writes_no_place_twice(period, monkeypatch):
    # A new item takes the place of one that is gone; which of two writes counts, JAX leaves open.
    adder, rows = PrioritisedReplay(20, 4, 1, period=6), stream(2, 61, period)
    state = state_after(adder, rows)
    monkeypatch.setattr(sum_tree, "write", lambda tree, index, priority: (index,))
    block, timestep = jax.tree.map(lambda x: x[:3], rows), rows.timestep
    following = jax.tree.map(lambda x: x[3], timestep)
    traced_anew = jax.jit(lambda *args: adder.add(*args).tree[0])
    index = np.asarray(traced_anew(state, block, 3, following))
    places = index[index != sum_tree.NOWHERE]
    assert len(places) >= 5
    assert len(set(places.tolist())) == len(places)


@pytest.mark.parametrize("num_envs", [1, 4])
def test_prioritised_beta_is_a_function_of_environment_steps(num_envs):
    adder = PrioritisedReplay(
        1000, 64, 1, period=4, exponent=1.0, beta=0.25, beta_steps=96, epsilon=1e-20
    )
    found = {}
    for t, state in states(adder, stream(num_envs, 128 // num_envs + 1)):
        state, batch = compiled(adder)[1](state, KEY)
        # Priorities are 1 and e; the weight of the second is e^-beta.
        odd = np.asarray(batch.action)[:, 0] % 2
        state = compiled(adder)[2](state, np.where(odd, np.e, 1.0))
        after, batch = compiled(adder)[1](state, KEY)
        priority = np.asarray(after.tree[0])[np.asarray(after.sampled)]
        light, weight = np.isclose(priority, np.e), np.asarray(batch.weight)[:, 0]
        np.testing.assert_allclose(weight[~light], 1, rtol=1e-6)
        np.testing.assert_allclose(weight[light], weight[light][0], rtol=1e-6)
        found[t * num_envs] = -np.log(weight[light][0])
    steps = np.arange(4, 129, 4)
    assert list(found) == steps.tolist()
    np.testing.assert_allclose(
        list(found.values()), 0.25 + 0.75 * np.minimum(steps / 96, 1), rtol=1e-5
    )


def test_prioritised_weights_multiply_those_of_steps():
    adder = PrioritisedReplay(30, 12, 1, length=4, exponent=1.0, beta=1.0)
    state = state_after(adder, stream(1, 30, period=5))
    state, batch = compiled(adder)[1](state, KEY)
    state = compiled(adder)[2](state, 1.0 + np.asarray(batch.action)[:, 0] % 3)
    _, batch = compiled(adder)[1](state, KEY)
    weight, name = np.asarray(batch.weight), np.asarray(batch.action)
    real = name % 5 != 4  # the step after LAST, once an episode
    assert (weight > 0).tolist() == real.tolist()
    assert np.unique(weight[real]).size > 1
    for row, inside in zip(weight, real, strict=True):
        assert np.unique(row[inside]).size == 1


def test_prioritised_is_ready_as_a_replay_is():
    adder = PrioritisedReplay(20, 2, min_size=6, period=4)
    for t, state in states(adder, stream(2, 13)):
        assert bool(adder.ready(state)) == (2 * t >= 6)
        assert not adder.ready(compiled(adder)[1](state, KEY)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exponent": -0.1}, r"exponent must be at least 0, got -0.1"),
        ({"beta": 1.1}, r"beta must be .* at most 1, got 1.1"),
        ({"beta_steps": 0}, r"beta_steps must be at least 1 and at most 536870912, got 0"),
        ({"epsilon": 0.0}, r"epsilon must be greater than 0, got 0.0"),
        ({"min_size": 5}, r"capacity must be at least min_size=5"),
    ],
)
def test_prioritised_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        PrioritisedReplay(**{"capacity": 4, "batch_size": 2, "min_size": 1} | settings)


# --- The tree. Whole numbers below 2^24 add up exactly in float32, in any order.

SIZES = [1, 63, 64, 65, 4096, 4097, 5000]
DRAWS = 2000  # shares that are looked for at once


def write(tree, index, values):
    """Writes any number of items, of one shape for JAX."""
    beyond = [(0, max(SIZES) - len(index))]
    index = np.pad(index, beyond, constant_values=sum_tree.NOWHERE)
    return jax.jit(sum_tree.write)(tree, index, np.pad(values, beyond))


def tree_of(values):
    values = np.asarray(values, np.float32)
    tree = sum_tree.init(len(values))
    assert sum_tree.total(tree) == 0
    return write(tree, np.arange(len(values)), values)


@pytest.mark.parametrize("size", SIZES)
def test_sum_tree_equals_numpy_after_any_writes(size):
    rng = np.random.default_rng(size)
    values = np.zeros(size, np.float32)
    tree = sum_tree.init(size)
    for count in (1, size, max(1, size // 3), 7):
        index = rng.choice(size, count) if count == 7 else rng.permutation(size)[:count]
        given = np.float32(rng.integers(0, 9, size)[index])  # the same for one that occurs twice
        somewhere = rng.random(count) < 0.8
        tree = write(tree, np.where(somewhere, index, sum_tree.NOWHERE), given)
        values[index[somewhere]] = given[somewhere]
        np.testing.assert_array_equal(tree[0][:size], values)
        assert sum_tree.total(tree) == values.sum()
        check_sums(tree)


@pytest.mark.parametrize("size", SIZES)
def test_sum_tree_finds_as_numpy_does(size):
    rng = np.random.default_rng(size)
    values = rng.integers(0, 4, size)
    values[rng.integers(size)] = 3  # or the only one might be 0
    tree, sums = tree_of(values), np.cumsum(values)
    total = sums[-1]
    share = np.float32([total - 0.25, 0.75, *range(0, total, max(1, total // 997))])
    assert len(share) <= DRAWS
    share = np.resize(share, DRAWS)
    index, priority = jax.jit(sum_tree.find)(tree, share)
    expected = np.searchsorted(sums, share, side="right")
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(priority, values[expected])


@pytest.mark.parametrize("size", SIZES)
def test_sum_tree_never_finds_what_has_priority_0(size):
    rng = np.random.default_rng(size)
    values = np.where(rng.random(size) < 0.1, rng.exponential(size=size), 0.0)
    values[size // 2] = 0.1
    values[size // 2 + 1 :] = 0.0  # so there is nothing behind where rounding may lead
    tree = tree_of(values)
    total = np.float32(sum_tree.total(tree))
    np.testing.assert_allclose(total, values.sum(), rtol=1e-5)
    beyond = [total, np.nextafter(total, np.float32(np.inf)), 1.0001 * total]
    share = np.float32([*beyond, *(total * rng.random(DRAWS - 3))])
    index, priority = jax.jit(sum_tree.find)(tree, share)
    assert (values[index] > 0).all()
    np.testing.assert_array_equal(priority, np.float32(values)[index])
    assert index[:3].tolist() == [size // 2] * 3
    sums = np.concatenate([[0.0], np.cumsum(values)])
    slack = 1e-5 * total
    assert (sums[index[3:]] - slack <= share[3:]).all()
    assert (share[3:] <= sums[index[3:] + 1] + slack).all()
