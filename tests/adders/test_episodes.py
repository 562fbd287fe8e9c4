"""The Episodes adder: streams in, expected batches out; and against a reference written plainly."""

import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import StepType

from rlws.adders import Episodes, Schedule, episodes
from rlws.settings import SettingError
from rlws.types import Row

F, M, L = StepType.FIRST, StepType.MID, StepType.LAST
BLOCK = 8


def play(*ends, rows=None):
    """Returns one environment's step types and discounts for episodes such as "T3", "C1", "U4".

    T: terminated after so many steps, C: cut by a time limit, U: still under way.
    """
    step_type, discount = [], []
    for end in ends:
        kind, length = end[0], int(end[1:])
        step_type += [F] + [M] * (length - (kind != "U")) + [L] * (kind != "U")
        discount += [1] * length + [0 if kind == "T" else 1]
    return step_type[:rows], discount[:rows]


def stream(*environments):
    """Returns rows [T, B]. Rewards, observations and actions name time and environment."""
    step_type, discount = (np.stack(x, axis=1) for x in zip(*environments, strict=True))
    name = 100 * np.arange(len(step_type))[:, None] + np.arange(len(environments))
    reward = np.where(step_type == F, 0, 1 + name)
    observation = {"o": np.stack([name, -name], axis=-1).astype(np.float32)}
    timestep = dm_env.TimeStep(
        step_type.astype(np.int32),
        reward.astype(np.float32),
        discount.astype(np.float32),
        observation,
    )
    return Row(timestep, name.astype(np.int32), {"e": name.astype(np.float32)})


EXAMPLE = jax.tree.map(lambda x: x[0, 0], stream(play("T1")))


class Machine:
    """An adder with jitted methods, fed in blocks of any length."""

    def __init__(self, count, max_length, num_envs):
        adder = Episodes(count, max_length)
        self.empty = jax.jit(adder.init, static_argnums=1)(EXAMPLE, num_envs)

        def add(state, rows, length):
            state = adder.add(state, rows, length, None)  # whole episodes need no more
            return state, adder.ready(state)

        def sample(state):
            state, batch = adder.sample(state, jax.random.key(0))
            masked = batch.masked()
            inside = jnp.arange(max_length + 1)[None] <= (batch.weight > 0).sum(1, keepdims=True)
            return state, batch, masked._replace(first=masked.first & inside)

        self._add, self._sample = jax.jit(add), jax.jit(sample)
        self.start()

    def start(self):
        self.state, self.ready = self.empty, False

    def add(self, rows):
        """Adds a block of at most BLOCK rows, padded with garbage that looks like episodes."""
        length = len(rows.action)
        garbage = lambda x: np.resize(np.array([0, 2, 1, 99], x.dtype), (BLOCK, *x.shape[1:]))
        block = jax.tree.map(lambda x: np.concatenate([x, garbage(x)])[:BLOCK], rows)
        self.state, self.ready = self._add(self.state, block, length)
        assert self.state.steps <= self.state.rows.action.shape[0]
        return bool(self.ready)

    def sample(self):
        self.state, batch, masked = jax.device_get(self._sample(self.state))
        return batch, masked


@functools.cache
def compiled(count, max_length, num_envs):
    return Machine(count, max_length, num_envs)


def machine_for(count, max_length, num_envs):
    """Returns an empty machine."""
    machine = compiled(count, max_length, num_envs)
    machine.start()
    return machine


def parts(rows, lengths=None):
    """Cuts rows into blocks of these lengths, then of BLOCK."""
    begin, lengths = 0, iter(lengths or ())
    while begin < len(rows.action):
        end = begin + next(lengths, BLOCK)
        yield jax.tree.map(lambda x, a=begin, b=end: x[a:b], rows)
        begin = end


def names(masked):
    """Returns for each trajectory the names (time * 100 + environment) of its real steps."""
    return [
        action[weight > 0].tolist()
        for action, weight in zip(masked.action, masked.weight, strict=True)
    ]


# name: (episodes, max_length, environments, expected steps by name, ends, dropped, pending)
# An end is "T" terminated, "C" cut by the environment, "X" cut at max_length.
CASES = {
    "termination": (1, 4, [play("T3")], [[0, 100, 200]], "T", 0),
    "truncation": (1, 4, [play("C3")], [[0, 100, 200]], "C", 0),
    "one-step episodes": (3, 4, [play("T1", "C1", "T1")], [[0], [200], [400]], "TCT", 0),
    "one step at most": (2, 1, [play("T1", "C1")], [[0], [200]], "TC", 0),
    "exactly max_length": (2, 3, [play("T3", "C3")], [[0, 100, 200], [400, 500, 600]], "TC", 0),
    "longer than max_length": (2, 3, [play("T6", "T1")], [[0, 100, 200], [700]], "XT", 3),
    "longer, still under way": (1, 4, [play("U4")], [[0, 100, 200, 300]], "X", 1),
    "longer by one": (1, 4, [play("T5")], [[0, 100, 200, 300]], "X", 1),
    "mixed lengths": (
        3, 4, [play("T2", "C4", "T1")], [[0, 100], [300, 400, 500, 600], [800]], "TCT", 0,
    ),
    "surplus is dropped": (1, 4, [play("T2", "T2", "U0")], [[0, 100]], "T", 3),
    # Environment 1 ends two episodes before environment 0 ends its first, which began before them.
    "first to begin, not to end": (
        2, 6, [play("T5", "U2"), play("T1", "T2", "U3")],
        [[0, 100, 200, 300, 400], [1]], "TT", 3 + 2 + 4,
    ),
    "three environments": (
        4, 4,
        [play("T4"), play("T1", "C2"), play("T2", "U1")],
        [[0, 100, 200, 300], [1], [2, 102], [201, 301]], "TTTC", 2,
    ),
    "one needs one of two": (1, 4, [play("T3"), play("T1", "T1")], [[0, 100, 200]], "T", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_episodes_batches_follow_the_table(case):
    count, max_length, environments, expected, ends, dropped = case
    rows = stream(*environments)
    machine = machine_for(count, max_length, len(environments))
    for block in parts(rows):
        machine.add(block)
    assert machine.ready
    batch, masked = machine.sample()
    assert names(masked) == expected
    assert machine.state.dropped == dropped
    for i, (steps, end) in enumerate(zip(expected, ends, strict=True)):
        length, environment = len(steps), steps[0] % 100
        times = np.array([name // 100 for name in (*steps, steps[-1] + 100)])
        column = jax.tree.map(lambda x, t=times, e=environment: x[t, e], rows)
        same = lambda found, wanted, i=i, n=length: np.testing.assert_array_equal(
            found[i, :n], wanted[:n]
        )
        same(masked.reward, column.timestep.reward[1:])
        same(masked.discount, [1.0] * (length - 1) + [0.0 if end == "T" else 1.0])
        same(masked.last, [False] * (length - 1) + [True])  # a cut is an end
        same(masked.first, [True] + [False] * length)
        same(masked.extras["e"], steps)
        np.testing.assert_array_equal(
            masked.observation["o"][i, : length + 1], column.timestep.observation["o"]
        )
        # Nothing but the episode: no weight, no end and, masked, no value beyond it.
        np.testing.assert_array_equal(batch.weight[i], np.arange(max_length) < length)
        assert not batch.last[i, length:].any()
        assert not masked.reward[i, length:].any()
        filler = masked.observation["o"][i, :1]
        assert (masked.observation["o"][i, length + 1 :] == filler).all()


def test_episodes_are_ready_with_the_last_end_and_not_before():
    machine = machine_for(2, 6, 2)
    rows = stream(play("T5", "U2"), play("T1", "T2", "U3"))
    readiness = [machine.add(block) for block in parts(rows, [1] * 9)]
    assert readiness == [False] * 5 + [True] * 4  # row 5 is the LAST of environment 0


def test_episodes_under_way_when_a_batch_is_taken_are_not_used():
    machine = machine_for(1, 4, 2)
    rows = stream(play("T2", "T2", "T1", "T1", "U3"), play("T4", "T3", "U4"))
    blocks = iter(parts(rows, [3, 3, 2]))
    assert machine.add(next(blocks))  # rows 0 to 2: environment 0 ended; environment 1 plays on
    assert names(machine.sample()[1]) == [[0, 100]]
    assert machine.state.dropped == 3
    assert machine.add(next(blocks))  # rows 3 to 5; row 5 is LAST of 0 and FIRST of 1
    assert names(machine.sample()[1]) == [[300, 400]]
    assert machine.state.dropped == 3 + 1 + 1
    assert not machine.add(next(blocks)) or names(machine.sample()[1]) == [[600]]


def test_episodes_count_drops_over_the_whole_run():
    machine = machine_for(1, 4, 1)
    total = 0
    for block in parts(stream(play(*["T7"] * 8)), [8] * 8):
        assert machine.add(block)
        assert names(machine.sample()[1])[0] == [100 * (total + i) for i in range(4)]
        total += 8
    assert machine.state.dropped == 8 * 3


def test_episodes_rest_of_a_long_episode_takes_no_room():
    machine = machine_for(2, 3, 1)
    rows = stream(play("T200", "T1"))
    assert len(rows.action) > 4 * machine.state.rows.action.shape[0]
    readiness = [machine.add(block) for block in parts(rows)]
    assert readiness == [False] * (len(readiness) - 1) + [True]
    assert names(machine.sample()[1]) == [[0, 100, 200], [20100]]


class Reference:
    """What the docstring of Episodes says, step by step."""

    def __init__(self, count, max_length, num_envs):
        self.count, self.max_length, self.dropped = count, max_length, 0
        self.current = [None] * num_envs
        self.begin_batch()

    def begin_batch(self):
        self.records, self.seen, self.ends = [], 0, 0
        self.current = [None] * len(self.current)

    def add(self, step_types):  # one row
        for i, step_type in enumerate(step_types):
            self.seen += step_type != L
            self.ends += step_type == L
            if step_type == F:
                self.current[i] = None
                if len(self.records) < self.count:
                    self.current[i] = {"steps": 0, "env": i, "ended": False}
                    self.records.append(self.current[i])
            elif (record := self.current[i]) and not record["ended"]:
                record["steps"] += 1
                record["ended"] = step_type == L or record["steps"] == self.max_length

    def ready(self):
        return sum(record["ended"] for record in self.records) == self.count

    def sample(self):
        lengths = [(record["env"], record["steps"]) for record in self.records]
        self.dropped += self.seen - sum(length for _, length in lengths)
        self.begin_batch()
        return lengths


def random_stream(rng, num_envs, longest, rows):
    def environment():
        lengths = rng.integers(1, longest + 1, rows)
        return play(*(f"{rng.choice(['T', 'C'])}{length}" for length in lengths), rows=rows)

    return stream(*(environment() for _ in range(num_envs)))


def random_cuts(rng, rows):
    return rng.integers(1, BLOCK + 1, rows).tolist()


@pytest.fixture(autouse=True)
def tight_buffers(monkeypatch):
    """Leaves room for no more than the blocks of these tests."""
    monkeypatch.setattr(episodes, "MAX_BLOCK", BLOCK)


SHAPES = [(1, 1, 1), (3, 4, 1), (1, 5, 2), (4, 3, 2), (5, 4, 3), (2, 6, 4), (9, 2, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("overlong", [False, True])
@pytest.mark.parametrize(("count", "max_length", "num_envs"), SHAPES)
def test_episodes_match_the_reference_on_random_streams(count, max_length, num_envs, overlong):
    rng = np.random.default_rng(17 * count + max_length)
    machine = machine_for(count, max_length, num_envs)
    capacity = machine.state.rows.action.shape[0]
    batches = 0
    for _ in range(6):
        machine.start()
        reference = Reference(count, max_length, num_envs)
        rows = random_stream(rng, num_envs, max_length * 2 if overlong else max_length, 60)
        steps = np.cumsum((rows.timestep.step_type != L).sum(1))
        time = used = 0
        for block in parts(rows, random_cuts(rng, 60)):
            machine.add(block)
            for step_types in block.timestep.step_type:
                reference.add(step_types)
            time += len(block.action)
            full = machine.state.steps > capacity - BLOCK
            if overlong and full and not reference.ready():
                break  # more of a batch was seen than the buffer was made for
            assert machine.ready == reference.ready()
            if not machine.ready:
                continue
            if not overlong:
                assert reference.ends >= Episodes(count, max_length).min_ends
            expected = reference.sample()
            _, masked = machine.sample()
            found = names(masked)
            assert [(x[0] % 100, len(x)) for x in found] == expected
            assert all(np.diff(x).tolist() == [100] * (len(x) - 1) for x in found)
            assert all(rows.timestep.step_type[x[0] // 100, x[0] % 100] == F for x in found)
            used += sum(len(x) for x in found)
            assert machine.state.dropped == reference.dropped
            # Every step seen is in a batch, dropped, or waits.
            assert used + machine.state.dropped + machine.state.seen == steps[time - 1]
            batches += 1
    assert batches > 6


@pytest.mark.parametrize("overlong", [False, True])
@pytest.mark.parametrize(("count", "max_length", "num_envs"), SHAPES[1::2])
def test_episodes_adding_a_block_is_adding_its_rows(count, max_length, num_envs, overlong):
    rng = np.random.default_rng(count + max_length)
    machine = machine_for(count, max_length, num_envs)

    def batch_after(rows, lengths):
        machine.start()
        for block in parts(rows, lengths):
            machine.add(block)
            if machine.ready:
                full = machine.state.ended < count
                return None if full else (*machine.sample()[1], int(machine.state.dropped))
        return None

    compared = 0
    for _ in range(12):
        rows = random_stream(rng, num_envs, max_length * 2 if overlong else max_length, 64)
        # Rows before which the batch is complete, so that both take it at the same time.
        machine.start()
        singles = list(parts(rows, [1] * 64))
        until = next((t for t, row in enumerate(singles) if machine.add(row)), None)
        if until is None:
            continue
        rows = jax.tree.map(lambda x, n=until + 1: x[:n], rows)
        one_by_one = batch_after(rows, [1] * 64)
        in_blocks = batch_after(rows, random_cuts(rng, 64))
        if one_by_one is not None and in_blocks is not None:
            jax.tree.map(np.testing.assert_array_equal, one_by_one, in_blocks)
            compared += 1
    assert compared > 6


def stuck():
    """Two environments in endless episodes and one that plays all the others."""
    return stream(play("U179"), play("U179"), play(*["C20"] * 9, rows=180))


def test_episodes_of_a_full_buffer_are_complete():
    machine = machine_for(10, 20, 3)
    for block in parts(stuck(), [1] * 180):
        if machine.add(block):
            break
    assert machine.ready
    _, masked = machine.sample()
    for steps, last in zip(names(masked), masked.last, strict=True):
        assert len(steps) in (0, 20) or last[len(steps) - 1]


def test_episodes_full_buffer_neither_overflows_nor_loses_count():
    machine = machine_for(10, 20, 3)
    used = seen = 0
    for block in parts(stuck(), [3, 1, 7] * 30):
        seen += (block.timestep.step_type != L).sum()
        if machine.add(block):
            used += sum(map(len, names(machine.sample()[1])))
        assert used + machine.state.dropped + machine.state.seen == seen
    assert used > 100


def test_episodes_are_ready_at_the_episode_limit():
    machine = machine_for(1, 4, 1)
    rows = stream(play("U4"))
    machine.add(rows)
    assert machine.ready
    # A host counts an episode of so many steps as ended, and so looks in time.
    assert Episodes(1, 4).episode_limit == 4
    assert Episodes(1, 4).min_ends == 1


def test_episodes_look_whenever_an_episode_ends():
    assert Episodes(1, 2).schedule(3) == Schedule(block_length=None, updates=1)


def test_episodes_settings_are_checked():
    with pytest.raises(SettingError, match=r"Episodes\.episodes must be at least 1, got 0"):
        Episodes(0, 5)
    with pytest.raises(SettingError, match=r"Episodes\.max_length must be at least 1, got 0"):
        Episodes(5, 0)


def test_episodes_add_and_sample_under_vmap():
    adder = Episodes(2, 3)
    seeds = [stream(play("T3", "C1")), stream(play("T1", "C3"))]
    rows = jax.tree.map(lambda *x: np.stack(x), *seeds)

    @jax.jit
    def batches():
        states = jax.vmap(lambda _: adder.init(EXAMPLE, 1))(jnp.arange(2))
        states = jax.vmap(adder.add, (0, 0, None, None))(states, rows, 6, None)
        return jax.vmap(adder.ready)(states), jax.vmap(adder.sample, (0, None))(states, None)[1]

    ready, batch = batches()
    assert ready.all()
    np.testing.assert_array_equal(batch.weight.sum(-1), [[3, 1], [1, 3]])
