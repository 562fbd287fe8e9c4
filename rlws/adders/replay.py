"""Experience replay: what off-policy methods learn from, sampled uniformly.

Lin, 1992, "Self-improving reactive agents based on reinforcement learning, planning and teaching";
Mnih et al., 2015, "Human-level control through deep reinforcement learning".
"""

import dataclasses
from typing import Any, NamedTuple, Self

import dm_env
import jax
import jax.numpy as jnp

from rlws.adders.adder import Adder, Schedule
from rlws.adders.ring import write
from rlws.settings import Fraction, PositiveInt, SettingError, Settings
from rlws.types import Array, Key, Metrics, Row, Trajectory

LARGE = 2**30  # of a counter


class ReplayState(NamedTuple):
    """The stream of the last rows, stored once, and where in it trajectories may begin.

    Both are rings. `starts` holds places in `rows`, oldest at `tail`; the number in between of all
    starts so far is `begun - tail`.
    """

    rows: Row  # leaves [R, B, ...], row t of the stream in slot t % R
    written: Array  # rows with an action so far; large counts are less by rounds of their ring
    starts: Array  # [S] int32, slot * B + environment of each start
    begun: Array  # starts so far
    tail: Array  # starts so far that are overwritten by now
    fresh: Array  # whether rows came since the last batch
    age: Array  # mean over the last batch: steps since its trajectories began, ignored ones too


class Replay(Adder):
    """Batches of trajectories drawn uniformly, with replacement, from the last `capacity` steps.

    A trajectory has `length` steps and begins at any step that is experience, so never at the
    ignored step after a LAST timestep; with `start_period` k > 1, at every k-th row of the stream
    instead. One longer than a step may span episodes, and a loss must cut its returns there
    (`Trajectory.trace`); a transition never does.

    With `n_step` > 1 trajectories are one transition of up to n steps: reward is the discounted sum
    of rewards to n steps ahead or the end of the episode, whichever is nearer, `observation[1]` is
    the one there, and the discount leaves just one `discount` factor for the loss to multiply.
    """

    capacity: PositiveInt  # steps kept, of all environments, ignored ones included
    batch_size: PositiveInt  # trajectories
    min_size: PositiveInt  # steps before the first batch
    period: PositiveInt = 1  # steps (of all environments) between turns of learning
    updates: PositiveInt = 1  # of the learner in each turn, scanned in one dispatch
    length: PositiveInt = 1  # steps of a trajectory
    start_period: PositiveInt = 1  # rows between starts of trajectories
    n_step: PositiveInt = 1
    discount: Fraction = 1.0  # gamma, for `n_step` > 1 only

    def __post_init__(self):
        super().__post_init__()
        if self.n_step > 1 and self.length > 1:
            raise SettingError(
                f"Replay: n_step must be 1 for trajectories of length {self.length}, got "
                f"{self.n_step}; let the loss look n steps ahead within them"
            )
        if self.min_size > self.capacity or self._span > self.capacity:
            raise SettingError(
                f"Replay: capacity must be at least min_size={self.min_size} and the steps of a "
                f"trajectory, {self._span}, got {self.capacity}; raise capacity"
            )

    @classmethod
    def of(cls, config: Settings, **others: Any) -> Self:
        """Returns the replay that is said by an agent's settings of the names above, and others."""
        names = {field.name for field in dataclasses.fields(Replay)}
        return cls(**{k: v for k, v in vars(config).items() if k in names} | others)

    @property
    def _span(self) -> int:
        """Steps from the start of a trajectory to the last timestep it needs."""
        return max(self.length, self.n_step)

    def schedule(self, num_envs: int) -> Schedule:
        block_length = -(-self.period // num_envs)
        updates, rest = divmod(self.updates * block_length * num_envs, self.period)
        if rest:
            raise SettingError(
                f"Replay: {self.updates} updates every period={self.period} steps cannot be kept "
                f"with num_envs={num_envs}, whose blocks have {block_length * num_envs} steps; "
                f"choose a period that divides {num_envs} or is a multiple of it"
            )
        return Schedule(block_length, updates)

    def init(self, row: Row, num_envs: int) -> ReplayState:
        zeros = lambda x: jnp.zeros((self.kept(num_envs), num_envs, *x.shape), x.dtype)
        zero = jnp.int32(0)
        return ReplayState(
            rows=jax.tree.map(zeros, row),
            written=zero,
            starts=jnp.zeros(self._num_starts(num_envs), jnp.int32),
            begun=zero,
            tail=zero,
            fresh=jnp.bool_(False),
            age=jnp.float32(0),
        )

    def kept(self, num_envs: int) -> int:
        block_length = self.schedule(num_envs).block_length or 1
        # The last trajectories wait for their last timestep, and a block overwrites as many rows.
        rows = -(-self.capacity // num_envs) + self._span + 1
        return block_length * (-(-rows // block_length) + 1)  # a block never wraps around

    def _num_starts(self, num_envs: int) -> int:
        return -(-self.capacity // num_envs) * num_envs

    def add(self, state: ReplayState, rows, length, timestep) -> ReplayState:
        block_length, num_envs = rows.timestep.step_type.shape
        num_rows, size = len(state.rows.timestep.step_type), len(state.starts)
        slot = state.written % num_rows
        adding = jnp.asarray(length) > 0
        ring = jax.tree.map(lambda r, x: write(r, x, slot, adding), state.rows, rows)
        following = jax.tree.map(
            lambda r, x: write(r, x[None], (slot + block_length) % num_rows, adding),
            ring.timestep,
            timestep,
        )
        ring = ring._replace(timestep=following)

        # Trajectories that have just got their last timestep.
        row = state.written - self._span + 1 + jnp.arange(block_length)
        slots = row % num_rows
        begins = jnp.broadcast_to((row >= 0)[:, None], (block_length, num_envs)) & adding
        if self.start_period == 1:
            begins &= ring.timestep.step_type[slots] != dm_env.StepType.LAST
        else:
            begins &= (row % self.start_period == 0)[:, None]
        begins = begins.ravel()
        place = (slots[:, None] * num_envs + jnp.arange(num_envs)[None]).ravel()
        number = state.begun + jnp.cumsum(begins) - 1
        index = jnp.where(begins, number % size, size)  # out of bounds: dropped
        starts = state.starts.at[index].set(place, mode="drop")
        begun = state.begun + begins.sum()

        # Starts whose place a new one took, or whose first row is overwritten: the block, and the
        # timestep after it, took block_length + 1 slots. Read after they are written: XLA would
        # copy all starts to keep those from before.
        number = state.tail + jnp.arange((block_length + 1) * num_envs)
        ahead = (starts[number % size] // num_envs - state.written) % num_rows
        gone = (number < begun - size) | ((number < state.begun) & (ahead <= block_length))
        return state._replace(
            rows=ring,
            written=state.written + jnp.where(adding, block_length, 0),
            starts=starts,
            begun=begun,
            tail=state.tail + jnp.where(adding, gone.sum(), 0),
            fresh=state.fresh | adding,
        )

    def ready(self, state: ReplayState) -> Array:
        num_envs = state.rows.timestep.step_type.shape[1]
        enough = state.written >= -(-self.min_size // num_envs)
        return state.fresh & enough & (state.begun > state.tail)

    def sample(self, state: Any, key: Key) -> tuple[Any, Trajectory]:
        size = jnp.maximum(state.begun - state.tail, 1)
        number = state.tail + jax.random.randint(key, (self.batch_size,), 0, size)
        index = number % len(state.starts)
        return self.taken(state, index), self.gather(state, index)

    def taken(self, state: ReplayState, index: Array) -> ReplayState:
        """Returns the state after the trajectories that begin at `starts[index]` were taken."""
        num_rows, num_envs = state.rows.timestep.step_type.shape
        rows = (state.written - state.starts[index] // num_envs) % num_rows
        state = state._replace(fresh=jnp.bool_(False), age=jnp.mean(rows * num_envs))
        # Before an int32 overflows, counters lose rounds of their rings, and are large still.
        fewer = lambda count, ring: jnp.where(count >= LARGE, LARGE // 2 // ring * ring, 0)
        starts = fewer(state.tail, len(state.starts))
        return state._replace(
            written=state.written - fewer(state.written, num_rows),
            begun=state.begun - starts,
            tail=state.tail - starts,
        )

    def gather(self, state: ReplayState, index: Array, weight: Array | float = 1.0) -> Trajectory:
        """Returns the trajectories that begin at `starts[index]`, [batch, T, ...]."""
        num_rows, num_envs = state.rows.timestep.step_type.shape
        slot, env = jnp.divmod(state.starts[index], num_envs)
        weight = jnp.broadcast_to(jnp.float32(weight), index.shape)

        def at(nest, offset):  # offset: steps ahead, any shape for each of the batch
            offset = jnp.broadcast_to(offset, (len(index), *jnp.shape(offset)[-1:]))
            return jax.tree.map(
                lambda x: x[(slot[:, None] + offset) % num_rows, env[:, None]], nest
            )

        steps = jnp.arange(self.length)
        action, extras = at((state.rows.action, state.rows.extras), steps)
        if self.n_step == 1:
            timestep = at(state.rows.timestep, jnp.arange(self.length + 1))
        else:
            timestep = self._ahead(at, state.rows.timestep)
        return jax.vmap(Trajectory.from_steps)(timestep, action, extras, weight)

    def metrics(self, state: Any) -> Metrics:
        return {"replay_age": state.age}

    def _ahead(self, at, timesteps):
        """Returns the timesteps at the start and n steps ahead, as if that were one step."""
        n = self.n_step
        step_type, reward, discount = at(timesteps[:3], 1 + jnp.arange(n))  # [batch, n]
        last = step_type == dm_env.StepType.LAST
        steps = jnp.where(last.any(axis=1), jnp.argmax(last, axis=1), n - 1) + 1
        inside = jnp.arange(n)[None] < steps[:, None]
        gammas = self.discount ** jnp.arange(n, dtype=jnp.float32)
        reward = jnp.sum(jnp.where(inside, gammas[None] * reward, 0.0), axis=1)
        discount = jnp.prod(jnp.where(inside, discount, 1.0), axis=1) * gammas[steps - 1]
        ends = at(timesteps, jnp.stack([jnp.zeros_like(steps), steps], axis=1))
        replace = lambda x, value: x.at[:, 1].set(value)
        return ends._replace(
            reward=replace(ends.reward, reward), discount=replace(ends.discount, discount)
        )
