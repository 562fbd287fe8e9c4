"""What a run on the device consists of, and what is logged of it."""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.trainers.blocks import DeviceBlock
from rlws.types import Array, EnvironmentSpec, Key, Row

LOG_SIZE = 2**16  # (steps of all environments) a chunk of the program may log


class Keys(NamedTuple):
    """The keys of the streams a run draws from, uint32 [2] each."""

    act: Key
    learn: Key
    environment: Key


class Run(NamedTuple):
    """The whole state of a run."""

    keys: Keys
    state: Any  # of the agent: core.State
    environment: Any  # leaves [B, ...]
    timestep: dm_env.TimeStep  # leaves [B, ...], to be acted on next
    actor: Any  # leaves [B, ...]
    step: Array  # rows so far
    episode: Array  # [B], which episode each environment is in
    episode_return: Array  # [B], so far
    episode_length: Array  # [B], so far


class Budget(NamedTuple):
    """How far a chunk may go, in environment steps and episodes from its start."""

    report: Array | int  # steps: the block in which they are reached ends the chunk
    steps: Array | int  # of the run: the very row in which they are reached ends it
    episodes: Array | int  # of the run, likewise
    updates: Array | int = 2**31 - 1  # of the run, in all: in place of the next one it halts


class Log(NamedTuple):
    """What happened in a chunk of the program."""

    steps: Array  # environment steps
    episodes: Array  # episodes ended
    rows: Array  # rows of `ended` in use
    sound: Array  # whether nothing was wrong with actions and timesteps, else it is in `block`
    halted: Array  # whether an update was not, or `updates` of the budget are reached
    ended: Array  # [rows, B, 2 + k], return, length and info of each episode that ended, else 0
    block: DeviceBlock  # the last one
    # Of these, steps and episodes in a block that the budget cut short: the run stands before it.
    cut_steps: Array
    cut_episodes: Array

    @classmethod
    def empty(cls, run: Run, row: Row, length: int, width: int) -> "Log":
        """Returns the log of nothing, for blocks of so many rows of this shape, and numbers."""
        num_envs = len(run.episode)
        rows = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
        counts = jnp.zeros((length, num_envs), bool)
        block = DeviceBlock(rows, run.timestep, run.episode, run.episode_length, counts)
        capacity = -(-max(LOG_SIZE // num_envs, 64) // length) * length
        ended, zero = jnp.zeros((capacity, num_envs, width)), jnp.int32(0)
        return cls(zero, zero, zero, jnp.bool_(True), run.state.halted, ended, block, zero, zero)

    def has_room(self, rows: int) -> Array:
        """Returns whether so many more rows can be logged."""
        return self.rows <= len(self.ended) - rows

    def add(self, block: DeviceBlock, spec: EnvironmentSpec, ended: Array) -> "Log":
        """Returns the log with a block of rows, and with what ended in it."""
        return self._replace(
            rows=self.rows + len(ended),
            sound=self.sound & block.sound(spec),
            ended=jax.lax.dynamic_update_slice_in_dim(self.ended, ended, self.rows, 0),
            block=block,
        )

    def live(self, budget: Budget) -> Array:
        """Returns whether the run goes on."""
        within = (self.steps < budget.steps) & (self.episodes < budget.episodes)
        return within & self.sound & ~self.halted


def only_whole(whole: Array, after: tuple[Run, Log], before: tuple[Run, Log]) -> tuple[Run, Log]:
    """Takes a run back to before a block that is not whole, so that a resumed one gets it whole."""
    (run, log), (old_run, old_log) = after, before
    run = select(whole, run._replace(state=None), old_run._replace(state=None))
    cut = lambda new, old, sofar: jnp.where(whole, 0, sofar + new - old)
    return run, log._replace(
        cut_steps=cut(log.steps, old_log.steps, log.cut_steps),
        cut_episodes=cut(log.episodes, old_log.episodes, log.cut_episodes),
    )


def select(where: Array, new: Any, old: Any) -> Any:
    """Returns `new` or `old`, a scalar decides.

    What is the same on both sides, such as the memory of a replay, is not copied.
    """
    return jax.tree.map(lambda x, y: x if x is y else jnp.where(where, x, y), new, old)
