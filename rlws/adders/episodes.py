"""Whole episodes, for Monte Carlo methods."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.adders.adder import Adder, Schedule
from rlws.settings import PositiveInt
from rlws.types import Array, Metrics, Row, Trajectory

MOST = 2.0**23  # steps a float32 counts; older ones are forgotten, slowly
MAX_BLOCK = 512  # steps; the longest block `add` has room for


class EpisodesState(NamedTuple):
    """The stream since the last batch, and which episodes of it the next batch will hold."""

    rows: Row  # leaves [capacity, B, ...], the stream since the last batch
    steps: Array  # rows written since then
    begun: Array  # episodes begun since then, counted up to `episodes`
    ended: Array  # how many of those have ended
    number: Array  # [B], which of those each environment plays; `episodes` or more: none
    begin: Array  # [B], the row at which it began
    seen: Array  # real steps since the last batch, of all environments
    used: Array  # real steps in batches so far; of both, more than `MOST` are not counted
    dropped: Array  # real steps that no batch held so far


class Episodes(Adder):
    """Batches of the first `episodes` episodes begun since the last batch, all of them complete.

    So no batch favours short episodes, as taking the first to end would, and each episode is played
    from start to end by the policy it improves. With several environments the surplus (episodes
    begun beyond those, or under way when the policy changed) is dropped, and counted in the metric
    `dropped_fraction`.

    An episode longer than `max_length` is cut there as if truncated; its rest is dropped.
    """

    episodes: PositiveInt
    max_length: PositiveInt  # steps

    def schedule(self, num_envs: int) -> Schedule:
        return Schedule(block_length=None)

    @property
    def min_ends(self) -> int:
        return self.episodes

    @property
    def episode_limit(self) -> int:
        return self.max_length

    def init(self, row: Row, num_envs: int) -> EpisodesState:
        # While an environment is free the next episode begins, so the last one has ended after this
        # many lengths: one for what ran before, (episodes - 1) / B for the others, one for itself.
        rounds = 2 + -(-(self.episodes - 1) // num_envs)
        capacity = rounds * (self.max_length + 1 + MAX_BLOCK)
        none = jnp.int32(0)
        return EpisodesState(
            rows=jax.tree.map(lambda x: jnp.zeros((capacity, num_envs, *x.shape), x.dtype), row),
            steps=none,
            begun=none,
            ended=none,
            number=jnp.full(num_envs, self.episodes, jnp.int32),
            begin=jnp.zeros(num_envs, jnp.int32),
            seen=none,
            used=jnp.float32(0),
            dropped=jnp.float32(0),
        )

    def add(self, state: EpisodesState, rows, length, timestep) -> EpisodesState:
        step_type = rows.timestep.step_type
        time = jnp.arange(step_type.shape[0])[:, None]
        real = time < length
        first = real & (step_type == dm_env.StepType.FIRST)
        last = real & (step_type == dm_env.StepType.LAST)
        row = state.steps + time

        count = jnp.cumsum(first.ravel()).reshape(first.shape)
        number = _latest(first, state.begun + count - 1, state.number)
        begin = _latest(first, row, state.begin)
        age = row - begin
        recording = real & (number < self.episodes) & (age <= self.max_length)
        ends = recording & (last | (age == self.max_length))
        write = lambda buffer, x: jax.lax.dynamic_update_slice_in_dim(buffer, x, state.steps, 0)
        return state._replace(
            rows=jax.tree.map(write, state.rows, rows),
            # Where nothing is being recorded the next block may overwrite this one.
            steps=state.steps + jnp.where(recording.any(), length, 0),
            begun=jnp.minimum(state.begun + count[-1, -1], self.episodes),
            ended=state.ended + ends.sum(),
            number=number[-1],
            begin=begin[-1],
            seen=state.seen + (real & (step_type != dm_env.StepType.LAST)).sum(),
        )

    def ready(self, state: EpisodesState) -> Array:
        # Episodes beyond `max_length` on several environments may fill the buffer first.
        full = state.steps > state.rows.timestep.step_type.shape[0] - MAX_BLOCK
        return (state.ended >= self.episodes) | full

    def sample(self, state: EpisodesState, key) -> tuple[EpisodesState, Trajectory]:
        step_type = state.rows.timestep.step_type
        row = jnp.arange(step_type.shape[0])[:, None]
        stored = row < state.steps
        first = stored & (step_type == dm_env.StepType.FIRST)
        last = stored & (step_type == dm_env.StepType.LAST)
        start, environment = jnp.nonzero(first, size=self.episodes, fill_value=0)
        ends = jax.lax.cummin(jnp.where(last, row, state.steps - 1), axis=0, reverse=True)
        length = jnp.minimum(ends[start, environment] - start, self.max_length)
        length = jnp.where(jnp.arange(self.episodes) < first.sum(), length, 0)

        def cut(start, environment, length):
            index = jnp.minimum(start + jnp.arange(self.max_length + 1), step_type.shape[0] - 1)
            rows = jax.tree.map(lambda x: x[index, environment], state.rows)
            inside = jnp.arange(self.max_length) < length
            trajectory = Trajectory.from_rows(rows, inside.astype(jnp.float32))
            return trajectory._replace(last=jnp.arange(self.max_length) == length - 1)

        batch = jax.vmap(cut)(start, environment, length)
        used = state.used + length.sum()
        dropped = state.dropped + state.seen - length.sum()
        kept = jnp.minimum(1.0, MOST / (used + dropped))
        state = state._replace(
            steps=jnp.int32(0),
            begun=jnp.int32(0),
            ended=jnp.int32(0),
            number=jnp.full_like(state.number, self.episodes),
            seen=jnp.int32(0),
            used=used * kept,
            dropped=dropped * kept,
        )
        return state, batch

    def metrics(self, state: EpisodesState) -> Metrics:
        return {"dropped_fraction": state.dropped / jnp.maximum(state.used + state.dropped, 1)}


def _latest(event: Array, value: Array, before: Array) -> Array:
    # Along time [T, B]: the (increasing) value at the latest event, or `before` [B] where none was.
    latest = jax.lax.cummax(jnp.where(event, value, -1), axis=0)
    return jnp.where(latest < 0, before, latest)
