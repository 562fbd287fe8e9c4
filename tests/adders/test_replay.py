"""Replay: every trajectory against the stream it comes from, and the ring against a simulation."""

import functools
import itertools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType

from rlws.adders import PrioritisedReplay, Replay
from rlws.adders.prioritised import PrioritisedState
from rlws.adders.replay import LARGE
from rlws.settings import SettingError
from rlws.types import Row, Trajectory

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST
KEY = jax.random.key(0)


def stream(*environments, rows=None, observe=None):
    """Returns rows [T, B] of environments, each a list of episodes (kind, rewards).

    Kinds are T, terminated, C, cut by a time limit, and U, still under way. Observations are
    (environment, episode, t), and the action says it all in one number.
    """
    columns = []
    for e, episodes in enumerate(environments):
        column = []
        for episode, (kind, rewards) in enumerate(episodes):
            for t, reward in enumerate([0.0, *rewards]):
                end = t == len(rewards) and kind != "U"
                step_type = F if t == 0 else L if end else M
                discount = 0.0 if end and kind == "T" else 1.0
                column.append((step_type, reward, discount, (e, episode, t)))
        columns.append(column[:rows])
    fields = zip(*(zip(*column, strict=True) for column in columns), strict=True)
    step_type, reward, discount, name = (np.stack(x, axis=1) for x in fields)
    observation = (observe or np.float32)(name)
    timestep = dm_env.TimeStep(
        step_type.astype(np.int32), np.float32(reward), np.float32(discount), observation
    )
    action = (name @ [10**6, 10**3, 1]).astype(np.int32)
    return Row(timestep, action, {"e": action + np.float32(0.5)})


def random_stream(rng, num_envs, rows, longest=5):
    def episode():
        return rng.choice(["T", "C"]), rng.normal(size=rng.integers(1, longest + 1))

    return stream(*([episode() for _ in range(rows)] for _ in range(num_envs)), rows=rows)


def cut(tree, begin, end):
    return jax.tree.map(lambda x: x[begin:end], tree)


@functools.cache
def compiled(adder):
    init = jax.jit(adder.init, static_argnums=1)
    return jax.jit(adder.add), jax.jit(adder.gather), jax.jit(adder.sample), init


def example(rows):
    return jax.tree.map(lambda x: jnp.asarray(x[0, 0]), rows)


def states(adder, rows, state=None):
    """Yields the rows added so far and the state, from the empty one on, block by block."""
    num_envs = rows.action.shape[1]
    length = adder.schedule(num_envs).block_length
    state = compiled(adder)[3](example(rows), num_envs) if state is None else state
    yield 0, state
    for begin in range(0, len(rows.action) - length, length):
        block, end = cut(rows, begin, begin + length), begin + length
        following = jax.tree.map(lambda x, t=end: x[t], rows.timestep)
        state = compiled(adder)[0](state, block, length, following)
        yield end, state


def last_state(adder, rows):
    return list(states(adder, rows))[-1][1]


def trajectories(adder, state):
    """Returns all trajectories that `sample` may return, oldest first."""
    size = len(state.starts)
    everything = compiled(adder)[1](state, np.arange(size))
    number = np.arange(state.tail, state.begun)
    assert len(number) <= size
    return jax.tree.map(lambda x: np.asarray(x)[number % size], everything)


def expected_trajectory(adder, rows, t, e):
    """Returns what the docstring says a trajectory is, written as a loop."""
    if adder.n_step == 1:
        return Trajectory.from_rows(
            jax.tree.map(lambda x: jnp.asarray(x[t : t + adder.length + 1, e]), rows)
        )
    at, end = rows.timestep, t
    reward, factor = 0.0, 1.0
    for _ in range(adder.n_step):
        end += 1
        reward += factor * at.reward[end, e]
        factor *= adder.discount * at.discount[end, e]
        if at.step_type[end, e] == L:
            break
    ends = np.array([t, end])
    return Trajectory(
        observation=at.observation[ends, e],
        action=rows.action[[t], e],
        reward=[reward],
        discount=[factor / adder.discount],
        weight=[1.0],
        first=at.step_type[ends, e] == F,
        last=[at.step_type[end, e] == L],
        extras=jax.tree.map(lambda x: x[[t], e], rows.extras),
    )


close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


class Ring:
    """The memory of a replay, simulated: which row each slot holds, which starts are alive."""

    def __init__(self, adder, slots, limit):
        self.adder, self.limit = adder, limit
        self.slots, self.starts, self.written = [None] * slots, [], 0

    def add(self, step_types, known):
        """Adds a block; of all rows before `known` the timestep is known."""
        adder = self.adder
        for row in range(self.written, known):
            self.slots[row % len(self.slots)] = row
        self.written = known - 1
        span = max(adder.length, adder.n_step)
        complete = range(max(0, known - span - len(step_types)), known - span)
        for row, e in itertools.product(complete, range(step_types.shape[1])):
            taken = (row, e) in self.starts or (row, e) <= max(self.starts, default=(-1, 0))
            begins = row % adder.start_period == 0
            if adder.start_period == 1:
                begins = step_types[row, e] != L
            if begins and not taken:
                self.starts.append((row, e))
        alive = [(r, e) for r, e in self.starts if self.slots[r % len(self.slots)] == r]
        self.starts = alive[-self.limit :]


# name: (environments, settings)
RINGS = {
    "smallest": (1, {"capacity": 1}),
    "one environment": (1, {"capacity": 7}),
    "capacity is no multiple": (3, {"capacity": 7, "period": 3}),
    "blocks of 4": (2, {"capacity": 20, "period": 8}),
    "block longer than capacity": (1, {"capacity": 5, "period": 9}),
    "n-step": (2, {"capacity": 15, "period": 4, "n_step": 3, "discount": 0.9}),
    "n-step, longer than a block": (1, {"capacity": 6, "n_step": 5, "discount": 0.5}),
    "sequences": (2, {"capacity": 12, "period": 6, "length": 4}),
    "sequences of a row in 3": (2, {"capacity": 16, "period": 4, "length": 5, "start_period": 3}),
    "sequences, one environment": (1, {"capacity": 9, "length": 3, "start_period": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("num_envs", "settings"), RINGS.values(), ids=RINGS)
def test_replay_holds_what_the_ring_holds_after_every_block(num_envs, settings):
    adder = Replay(batch_size=64, min_size=1, **settings)
    rows = random_stream(np.random.default_rng(1), num_envs, 150)
    span, step_type = max(adder.length, adder.n_step), rows.timestep.step_type
    limit = -(-adder.capacity // num_envs)  # rows
    ring, wraps = None, 0
    for t, state in states(adder, rows):
        ring = ring or Ring(adder, len(state.rows.action), limit * num_envs)
        ring.add(step_type[: t + 1], t + 1)
        held = trajectories(adder, state)
        expected = [expected_trajectory(adder, rows, *start) for start in ring.starts]
        assert len(held.weight) == len(expected)
        assert bool(adder.ready(state)) == (t > 0 and len(expected) > 0)
        if not expected:
            continue
        jax.tree.map(lambda x, *y: close(x, np.stack(y)), held, *expected)
        # The docstring's words: of the last `capacity` steps, all that have their last timestep.
        recent = range(max(0, t - limit), t - span + 1)
        promised = {
            (row, e)
            for row, e in itertools.product(recent, range(num_envs))
            if (row % adder.start_period == 0 if adder.start_period > 1 else step_type[row, e] != L)
        }
        assert promised <= set(ring.starts)
        wraps = t // len(state.rows.action)
    assert wraps >= 3


@pytest.mark.parametrize(("num_envs", "settings"), RINGS.values(), ids=RINGS)
def test_replay_age_is_the_steps_since_what_was_drawn_began(num_envs, settings):
    adder = Replay(batch_size=64, min_size=1, **settings)
    rows = random_stream(np.random.default_rng(1), num_envs, 60)
    row_of = {x.tobytes(): t for t, column in enumerate(rows.timestep.observation) for x in column}
    for t, state in states(adder, rows):
        if not adder.ready(state):
            continue
        state, batch = compiled(adder)[2](state, KEY)
        began = np.asarray(batch.observation)[:, 0]
        ages = [num_envs * (t - row_of[x.tobytes()]) for x in began]
        assert adder.metrics(state) == {"replay_age": np.mean(ages)}


FULL = {name: x for name, x in RINGS.items() if "start_period" not in x[1]}


@pytest.mark.parametrize(("num_envs", "settings"), FULL.values(), ids=FULL)
def test_replay_has_as_many_starts_as_steps_where_no_episode_ends(num_envs, settings):
    adder = Replay(batch_size=64, min_size=1, **settings)
    rows = stream(*[[("U", [0.0] * 99)]] * num_envs)
    full = -(-adder.capacity // num_envs) * num_envs
    span = max(adder.length, adder.n_step)
    for t, state in states(adder, rows):
        assert state.begun - state.tail == min(max(0, t + 1 - span) * num_envs, full)


@pytest.mark.parametrize(
    ("num_envs", "period", "n_step"), [(1, 1, 1), (1, 1, 4), (3, 3, 2), (2, 10, 1), (2, 10, 4)]
)
def test_replay_starts_are_the_steps_but_those_waiting(num_envs, period, n_step):
    adder = Replay(10**3, 4, 1, period, n_step=n_step)
    rows = random_stream(np.random.default_rng(2), num_envs, 101)
    for t, state in states(adder, rows):
        experience = rows.timestep.step_type[:t] != L
        waiting = experience[max(0, t - n_step + 1) :].sum()
        assert state.begun - state.tail == experience.sum() - waiting
    assert t == 100
    assert waiting == 0 or n_step > 1


@pytest.mark.parametrize(("num_envs", "settings"), list(RINGS.values())[1:5], ids=list(RINGS)[1:5])
def test_replay_sampled_transitions_are_steps_of_one_episode(num_envs, settings):
    adder = Replay(batch_size=64, min_size=1, **settings)
    rows = random_stream(np.random.default_rng(3), num_envs, 120)
    seen = set()
    for t, state in states(adder, rows):
        if not adder.ready(state):
            continue
        after, batch = compiled(adder)[2](state, jax.random.fold_in(KEY, t))
        assert not adder.ready(after)  # until there is more
        before, following = np.moveaxis(np.asarray(batch.observation), (1, 2), (0, 1))
        (e, episode, step), (e_after, episode_after, step_after) = before, following
        np.testing.assert_array_equal(e, e_after)
        np.testing.assert_array_equal(episode, episode_after)
        np.testing.assert_array_equal(step + 1, step_after)
        np.testing.assert_array_equal(batch.action[:, 0], e * 10**6 + episode * 10**3 + step)
        np.testing.assert_array_equal(batch.weight, 1)
        np.testing.assert_array_equal(batch.first[:, 0], step == 0)
        seen |= set(zip(e, episode, step, strict=True))
    assert len(seen) > 60 * num_envs


@pytest.mark.parametrize("rows", [6, 60], ids=["before the ring is full", "after"])
def test_replay_samples_uniformly(rows):
    adder = Replay(capacity=14, batch_size=2**14, min_size=1, period=2)
    state = last_state(adder, random_stream(np.random.default_rng(4), 2, rows + 1))
    names = trajectories(adder, state).action[:, 0]
    _, batch = compiled(adder)[2](state, KEY)
    found, counts = np.unique(batch.action[:, 0], return_counts=True)
    assert sorted(names) == found.tolist()
    expected = adder.batch_size / len(names)
    # Chi-squared of at most 13 degrees of freedom: beyond 45 once in 50,000 keys.
    assert ((counts - expected) ** 2 / expected).sum() < 45


def test_replay_samples_anew_with_every_key():
    adder = Replay(capacity=100, batch_size=32, min_size=1)
    state = last_state(adder, random_stream(np.random.default_rng(5), 1, 100))
    one, again, other = (
        np.asarray(compiled(adder)[2](state, jax.random.key(k))[1].action) for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_replay_is_ready_at_its_size_and_once_for_every_block():
    adder = Replay(capacity=20, batch_size=2, min_size=6, period=4)
    rows = random_stream(np.random.default_rng(6), 2, 13)
    found = {2 * t: bool(adder.ready(state)) for t, state in states(adder, rows)}
    assert found == {0: False, 4: False} | dict.fromkeys(range(8, 25, 4), True)


def poisoned(tree):
    """Returns the same shapes full of NaN, or of what would begin an episode."""
    return jax.tree.map(lambda x: np.full_like(x, np.nan if x.dtype == np.float32 else 0), tree)


@pytest.mark.parametrize("kind", [Replay, PrioritisedReplay])
@pytest.mark.parametrize("rows", [1, 3, 41], ids=["empty", "begun", "full"])
def test_replay_length_0_adds_nothing(rows, kind):
    adder = kind(capacity=8, batch_size=2, min_size=1, period=4)
    played = random_stream(np.random.default_rng(7), 2, rows)
    for _, state in states(adder, played):
        block = poisoned(random_stream(np.random.default_rng(8), 2, 2))
        following = jax.tree.map(lambda x: x[0], block.timestep)
        for length in (0, jnp.int32(0)):
            after = compiled(adder)[0](state, block, length, following)
            jax.tree.map(np.testing.assert_array_equal, after, state)


# --- n steps ahead.

# (n, gamma, rewards, kind, observation): rewards, discounts and step each transition leads to.
N_STEP = {
    "truncated": (3, 0.9, [1, 1], "C", [(1.9, 0.9, 2), (1.0, 1.0, 2)]),
    "terminated": (3, 0.9, [1, 1], "T", [(1.9, 0.0, 2), (1.0, 0.0, 2)]),
    "one step, terminated": (3, 0.9, [5], "T", [(5.0, 0.0, 1)]),
    "one step, truncated": (3, 0.9, [5], "C", [(5.0, 1.0, 1)]),
    "exactly n": (3, 0.9, [4, 8, 16], "C", [(24.16, 0.81, 3), (22.4, 0.9, 3), (16.0, 1.0, 3)]),
    "longer": (
        2, 0.5, [4, 8, 16, 32], "T",
        [(8.0, 0.5, 2), (16.0, 0.5, 3), (32.0, 0.0, 4), (32.0, 0.0, 4)],
    ),
    "undiscounted": (2, 1.0, [4, 8, 16], "C", [(12.0, 1.0, 2), (24.0, 1.0, 3), (16.0, 1.0, 3)]),
    "discount 0": (2, 0.0, [4, 8], "C", [(4.0, 0.0, 2), (8.0, 1.0, 2)]),
}  # fmt: skip


@pytest.mark.parametrize("case", N_STEP.values(), ids=N_STEP)
def test_replay_n_step_follows_the_table(case):
    n, gamma, rewards, kind, expected = case
    adder = Replay(100, 4, 1, n_step=n, discount=gamma)
    # What follows must not leak in.
    rows = stream([(kind, rewards), ("U", [100.0] * (n + 1))])
    held = trajectories(adder, last_state(adder, rows))
    assert held.reward.shape[1] == 1
    reward, discount, end = np.transpose(expected)
    ours = slice(0, len(rewards))
    np.testing.assert_allclose(held.reward[ours, 0], reward, rtol=1e-6)
    np.testing.assert_allclose(held.discount[ours, 0], discount, rtol=1e-6)
    np.testing.assert_array_equal(held.observation[ours, 1], [(0, 0, t) for t in end])
    np.testing.assert_array_equal(held.last[ours, 0], end == len(rewards))
    np.testing.assert_array_equal(held.weight, 1)
    assert (held.observation[len(rewards) :, :, 1] == 1).all()  # the other episode


@pytest.mark.parametrize(("kind", "target"), [("C", 10.0), ("T", 1.9)])
def test_replay_n_step_target_bootstraps_with_the_power_of_the_steps_taken(kind, target):
    adder = Replay(100, 4, 1, n_step=3, discount=0.9)
    rows = stream([(kind, [1.0, 1.0]), ("U", [0.0] * 4)])
    held = trajectories(adder, last_state(adder, rows))
    # A loss multiplies by one gamma, as it does after one step. Q of the final observation is 10.
    found = held.reward[0, 0] + 0.9 * held.discount[0, 0] * 10
    np.testing.assert_allclose(found, target, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_replay_keeps_the_reward_of_the_last_step(length, n):
    count, gamma = 12, 0.9 if n == 3 else 0.5
    adder = Replay(100, 4, 1, n_step=n, discount=gamma)
    rows = stream([("T", [0.0] * (length - 1) + [1.0])] * count + [("U", [0.0] * n)])
    held = trajectories(adder, last_state(adder, rows))
    # Within n steps of its end, a step sees the reward discounted.
    seen = sum(gamma**k for k in range(min(n, length)))
    np.testing.assert_allclose(held.reward.sum(), count * seen, rtol=1e-6)
    if n == 1:
        np.testing.assert_allclose(held.reward.mean() * len(held.reward), count, rtol=1e-6)


# --- Sequences.


def test_replay_sequences_span_episodes_with_weight_0_at_the_restart():
    adder = Replay(100, 4, 1, length=4)
    rows = stream([("T", [1.0, 2]), ("C", [3.0]), ("U", [4.0, 5, 6, 7])])
    held = trajectories(adder, last_state(adder, rows))
    # Rows: F M L F L F M M M M; those of LAST, 2 and 4, begin no sequence.
    name = lambda *names: [[0, int(n) // 10, int(n) % 10] for n in names]
    np.testing.assert_array_equal(held.observation[0], name(0, 1, 2, 10, 11))
    np.testing.assert_array_equal(held.observation[1], name(1, 2, 10, 11, 20))
    np.testing.assert_array_equal(held.observation[2], name(10, 11, 20, 21, 22))
    np.testing.assert_array_equal(held.observation[3], name(20, 21, 22, 23, 24))
    assert len(held.weight) == 4
    np.testing.assert_array_equal(held.weight, [[1, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 1], [1] * 4])
    np.testing.assert_array_equal(held.reward[:3], [[1, 2, 0, 3], [2, 0, 3, 0], [3, 0, 4, 5]])
    np.testing.assert_array_equal(held.discount[:3], [[1, 0, 1, 1], [0, 1, 1, 1], [1] * 4])
    np.testing.assert_array_equal(held.last[0], [False, True, False, True])
    np.testing.assert_array_equal(held.first[0], [True, False, False, True, False])
    np.testing.assert_array_equal(held.extras["e"][:, 0], held.action[:, 0] + 0.5)


def test_replay_start_period_begins_at_every_kth_row_ignored_ones_too():
    adder = Replay(100, 4, 1, length=3, start_period=2)
    rows = stream([("T", [1.0, 2]), ("C", [3.0]), ("U", [4.0, 5, 6, 7])])
    held = trajectories(adder, last_state(adder, rows))
    np.testing.assert_array_equal(held.action[:, 0], [0, 2, 1001, 2001])  # rows 0, 2, 4, 6
    np.testing.assert_array_equal(held.weight, [[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]])


# --- Types, settings, speed.


def test_replay_keeps_the_types_of_observations():
    dtypes = np.uint8, np.int8, np.bool_

    def observe(name):  # images and a number, so that nothing can be told from shape
        image = np.broadcast_to(name.sum(-1)[..., None, None, None], (*name.shape[:2], 4, 3, 2))
        return {"image": [image.astype(d) for d in dtypes], "n": name.astype(np.float16)}

    adder = Replay(10, 4, 1, n_step=2)
    rows = stream([("T", [1.0, 2]), ("C", [3.0]), ("U", [4.0, 5, 6, 7])], observe=observe)
    state = last_state(adder, rows)
    observation = jax.device_get(compiled(adder)[2](state, KEY)[1].observation)
    assert observation["n"].dtype == np.float16
    held = state.rows.timestep.observation["image"]
    for dtype, stored, image in zip(dtypes, held, observation["image"], strict=True):
        assert stored.dtype == image.dtype == dtype
        assert image.shape == (4, 2, 4, 3, 2)
        sums = observation["n"].sum(-1)[:, :, None, None, None].astype(dtype)
        np.testing.assert_array_equal(image, np.broadcast_to(sums, (4, 2, 4, 3, 2)))


# (period, updates, num_envs): block_length and updates of it
SCHEDULES = {
    (1, 1, 1): (1, 1),
    (4, 1, 1): (4, 1),
    (4, 1, 2): (2, 1),
    (4, 1, 4): (1, 1),
    (4, 1, 8): (1, 2),
    (1, 1, 8): (1, 8),
    (8, 8, 3): (3, 9),
    (1, 2, 8): (1, 16),
    (64, 64, 1): (64, 64),
    (50, 50, 4): (13, 52),
    (3, 3, 2): (2, 4),
}


@pytest.mark.parametrize(("asked", "expected"), SCHEDULES.items(), ids=map(str, SCHEDULES))
def test_replay_schedule_keeps_the_ratio_of_updates_to_steps(asked, expected):
    period, updates, num_envs = asked
    adder = Replay(100, 4, 1, period, updates)
    assert adder.schedule(num_envs) == expected
    block_length, each = expected
    assert each * period == updates * block_length * num_envs


@pytest.mark.parametrize(("period", "updates", "num_envs"), [(4, 1, 3), (4, 1, 6), (5, 2, 2)])
def test_replay_schedule_that_cannot_be_kept_is_refused(period, updates, num_envs):
    adder = Replay(100, 4, 1, period, updates)
    steps = -(-period // num_envs) * num_envs
    message = (
        rf"{updates} updates every period={period} steps cannot be kept with num_envs={num_envs}, "
        rf"whose blocks have {steps} steps"
    )
    with pytest.raises(SettingError, match=message):
        adder.schedule(num_envs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_step": 2, "length": 3}, r"n_step must be 1 for trajectories of length 3, got 2"),
        ({"min_size": 11}, r"capacity must be at least min_size=11 .* got 10; raise capacity"),
        ({"length": 11}, r"capacity must be at least min_size=1 and .* 11, got 10"),
        ({"n_step": 11}, r"capacity must be at least .* 11, got 10"),
        ({"capacity": 0}, r"Replay\.capacity must be at least 1, got 0"),
        ({"discount": 1.5}, r"Replay\.discount must be .* at most 1, got 1.5"),
    ],
)
def test_replay_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        Replay(**{"capacity": 10, "batch_size": 4, "min_size": 1} | settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Replay, PrioritisedReplay])
def test_replay_under_vmap_is_each_alone(kind):
    adder = kind(capacity=12, batch_size=5, min_size=3, period=4, n_step=2, discount=0.9)
    streams = [random_stream(np.random.default_rng(s), 2, 41, longest=1 + 2 * s) for s in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *streams)
    keys = jax.random.split(KEY, 3)
    initial = adder.init(example(streams[0]), 2)

    def run(rows, lengths, key):
        def add(state, inputs):
            block, following, length = inputs
            return adder.add(state, block, length, following), adder.ready(state)

        blocks = jax.tree.map(lambda x: x[:40].reshape(20, 2, *x.shape[1:]), rows)
        following = jax.tree.map(lambda x: x[2::2], rows.timestep)
        state, ready = jax.lax.scan(add, initial, (blocks, following, lengths))
        return *adder.sample(state, key), ready

    # Whatever else, members may be told at different times that nothing counts.
    lengths = 2 * (np.arange(20)[None] % np.array([[20], [3], [5]]) != 1)
    together = jax.jit(jax.vmap(run))(stacked, lengths, keys)
    alone = [jax.jit(run)(*args) for args in zip(streams, lengths, keys, strict=True)]
    jax.tree.map(lambda x, *y: np.testing.assert_array_equal(x, jnp.stack(y)), together, *alone)


def turn(adder, state, block, following):
    """Adds a block and, if ready, takes two batches: what trainers do, less the learner."""
    state = adder.add(state, block, len(block.action), following)

    def learn(state, key):
        state, batch = adder.sample(state, key)
        return adder.feedback(state, batch.reward.sum(1)), batch.reward.sum()

    nothing = lambda state: (state, jnp.zeros(2))
    scanned = lambda state: jax.lax.scan(learn, state, jax.random.split(KEY))
    return jax.lax.cond(adder.ready(state), scanned, nothing, state)


def looped(adder, state, block, following):
    return jax.lax.fori_loop(0, 10, lambda _, s: turn(adder, s, block, following)[0], state)


def added(adder, state, block, following):
    return adder.add(state, block, len(block.action), following)


@pytest.mark.parametrize("kind", [Replay, PrioritisedReplay])
@pytest.mark.parametrize("program", [added, turn, looped])
def test_replay_is_updated_in_place(program, kind):
    adder = kind(capacity=10**6, batch_size=4, min_size=1, period=8)
    rows = stream([("U", [1.0] * 8)], [("U", [1.0] * 8)])
    state = jax.eval_shape(lambda: adder.init(example(rows), 2))
    block, following = cut(rows, 0, 4), jax.tree.map(lambda x: x[4], rows.timestep)
    run = jax.jit(functools.partial(program, adder), donate_argnums=0)
    memory = run.lower(state, block, following).compile().memory_analysis()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert memory.alias_size_in_bytes >= size > 36 * 10**6
    assert memory.temp_size_in_bytes < 20_000  # a copy of any part of it would take millions


@pytest.mark.parametrize("kind", [Replay, PrioritisedReplay])
def test_replay_goes_on_beyond_what_an_int32_counts(kind):
    adder = kind(capacity=12, batch_size=4, min_size=6, period=2)
    rows = random_stream(np.random.default_rng(0), 2, 200)
    begun = last_state(adder, cut(rows, 0, 61))
    found = []
    for state in (begun, shifted(begun, LARGE - 40)):
        for t in range(60, 180, 2):
            (_, state) = list(states(adder, cut(rows, t, t + 3), state))[-1]
            assert compiled_ready(adder)(state)
            state, batch = compiled(adder)[2](state, jax.random.fold_in(KEY, t))
            found.append(batch)
    counted = getattr(state, "replay", state)
    assert LARGE // 3 < counted.tail < counted.begun < LARGE  # less, and no less than beta needs
    jax.tree.map(np.testing.assert_array_equal, found[:60], found[60:])


@functools.cache
def compiled_ready(adder):
    return jax.jit(adder.ready)


def shifted(state, most):
    """Returns the same state after many more rounds of its rings."""
    if isinstance(state, PrioritisedState):
        return state._replace(replay=shifted(state.replay, most))
    rounds = lambda ring: most // len(ring) * len(ring)
    rows, starts = rounds(state.rows.timestep.step_type), rounds(state.starts)
    counts = {"begun": state.begun + starts, "tail": state.tail + starts}
    return state._replace(written=state.written + rows, **counts)


def test_replay_of_many_environments_is_ready_beyond_2_to_the_31_steps():
    state = Replay(capacity=4, batch_size=1, min_size=4).init(example(stream([("U", [0.0])])), 2)
    adder, many = Replay(capacity=2**18, batch_size=1, min_size=2**18), 2**16
    wide = jax.tree.map(lambda x: jax.ShapeDtypeStruct((x.shape[0], many), x.dtype), state.rows)
    rows = wide._replace(timestep=wide.timestep._replace(step_type=np.zeros((8, many))))
    state = state._replace(rows=rows, written=jnp.int32(2**15), begun=2, fresh=jnp.bool_(True))
    assert adder.ready(state)
