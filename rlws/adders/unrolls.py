"""Unrolls of fixed length, for actor-critic methods."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.adders.adder import Adder, Schedule
from rlws.settings import PositiveInt
from rlws.types import Array, Row, Trajectory


class UnrollsState(NamedTuple):
    """The last unroll of each environment."""

    rows: Row  # leaves [length, B, ...]
    timestep: dm_env.TimeStep  # leaves [B, ...], to which the last step led
    fresh: Array  # whether no batch held them yet


class Unrolls(Adder):
    """Batches of the last `length` steps of every environment, each step in exactly one batch.

    An unroll begins where the one before ended and may span episodes; the step from a LAST to a
    FIRST timestep has weight 0. Every action of it was chosen with the same parameters.
    """

    independent = True

    length: PositiveInt  # steps

    def schedule(self, num_envs: int) -> Schedule:
        return Schedule(self.length)

    def kept(self, num_envs: int) -> int:
        return self.length + 1

    def init(self, row: Row, num_envs: int) -> UnrollsState:
        zeros = lambda *axes: lambda x: jnp.zeros((*axes, *x.shape), x.dtype)
        return UnrollsState(
            rows=jax.tree.map(zeros(self.length, num_envs), row),
            timestep=jax.tree.map(zeros(num_envs), row.timestep),
            fresh=jnp.bool_(False),
        )

    def add(self, state, rows, length, timestep):
        adding = jnp.asarray(length) > 0
        keep = lambda old, new: jnp.where(adding, new, old)
        held, following = jax.tree.map(keep, (state.rows, state.timestep), (rows, timestep))
        return UnrollsState(held, following, state.fresh | adding)

    def ready(self, state):
        return state.fresh

    def sample(self, state, key):
        last = jax.tree.map(lambda x: x[None], state.timestep)
        append = lambda x, y: jnp.concatenate([x, y])
        timestep = jax.tree.map(append, state.rows.timestep, last)
        steps = timestep, state.rows.action, state.rows.extras
        batch = jax.vmap(Trajectory.from_steps, in_axes=1)(*steps)
        return state._replace(fresh=jnp.bool_(False)), batch
