"""A run on the device as one loop: act, step, add, learn."""

from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws import environments
from rlws.agent import Agent
from rlws.environments import JaxEnvironment
from rlws.environments.checks import check_actions
from rlws.numerics import streams
from rlws.numerics.streams import Stream
from rlws.trainers import core
from rlws.trainers.device_block import DeviceBlock
from rlws.types import Array, Key, Params, Row

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
    ended: Array  # [rows, B, 2], return and length of each episode that ended, else 0
    block: DeviceBlock  # the last one
    # Of these, steps and episodes in a block that the budget cut short: the run stands before it.
    cut_steps: Array
    cut_episodes: Array

    def live(self, budget: Budget) -> Array:
        """Returns whether the run goes on."""
        within = (self.steps < budget.steps) & (self.episodes < budget.episodes)
        return within & self.sound & ~self.halted


class Program(NamedTuple):
    """The pure functions of a run on the device.

    Under `jax.vmap(..., axis_name=axis)` it is a population of runs in lockstep. Each stops at its
    own budget, as if alone. The axis lets loops and branches see one predicate for all: a batched
    one would compute both branches and copy the adder's memory at each turn.
    """

    agent: Agent
    environment: JaxEnvironment
    num_envs: int
    axis: str | None = None
    first: int = 0  # the number of environment 0 among those of the run
    workers: int = 1  # that play in as many environments each, in processes of their own

    def init(self, seed: Array | int) -> Run:
        """Returns the state before the first step."""
        state = core.init(self.agent, self.environment.spec(), seed, self.num_envs)
        return self.begin(seed)._replace(state=state)

    def begin(self, seed: Array | int) -> Run:
        """Returns the state before the first step, but for that of the agent."""
        return self.start(Keys(*(streams.key(seed, Stream[k.upper()]) for k in Keys._fields)))

    def start(self, keys: Keys) -> Run:
        """Returns the same for a run that draws from the streams of these keys."""
        counts = jnp.zeros(self.num_envs, jnp.int32)
        played = core.initial_actor_state(self.agent.actor, self.num_envs), jnp.int32(0)
        totals = counts, jnp.zeros(self.num_envs), counts
        return Run(keys, None, *self._reset(keys, counts), *played, *totals)

    def advance(self, run: Run, budget: Budget) -> tuple[Run, Log]:
        """Acts, steps, adds and learns until the budget is spent or the log is full."""
        block_length, updates = self.agent.adder.schedule(self.num_envs)
        length = block_length or 1
        log = self._empty_log(run, length)

        def ready(run):  # to learn
            return self.agent.adder.ready(run.state.adder)

        def running(carry):
            _, log = carry
            going = self._any(log.live(budget) & (log.steps < budget.report))
            return going & ~self._any(~log.sound) & (log.rows <= len(log.ended) - length)

        def collecting(carry):
            run, log = carry
            return running(carry) & self._any(log.live(budget) & ~ready(run))

        def collect(carry):
            run, log = carry
            params = run.state.learner.params
            waits = ready(run)  # of a population, for those that have no batch yet

            def step(carry, _):
                run, log = carry
                live = log.live(budget) & ~waits
                run, row, ended = self.step(run, params)
                count = lambda x: jnp.where(live, x.sum(), 0)
                steps = log.steps + count(~row.timestep.last())
                episodes = log.episodes + count(ended[:, 1] > 0)
                log = log._replace(steps=steps, episodes=episodes)
                return (run, log), (row, jnp.where(live, ended, 0.0), live)

            after, (rows, ended, live) = jax.lax.scan(step, carry, length=length, unroll=length < 2)
            (after, log), before = after, log
            counts = jnp.broadcast_to(live[:, None], (length, self.num_envs))
            block = DeviceBlock(rows, after.timestep, run.episode, run.episode_length, counts)
            log = log._replace(
                rows=log.rows + length,
                sound=log.sound & block.sound(self.environment.spec()),
                ended=jax.lax.dynamic_update_slice_in_dim(log.ended, ended, log.rows, 0),
                block=block,
            )
            whole = live.all()
            added = jnp.where(whole, length, 0)
            adder = self.agent.adder.add(run.state.adder, rows, added, after.timestep)
            if length > 1 or self.axis:
                after, log = _whole(whole, (after, log), (run, before))
            return after._replace(state=run.state._replace(adder=adder)), log

        def turn(carry):
            # An inner loop, so that the update stands outside it: vmapped over seeds it would
            # otherwise be computed at every step.
            run, log = jax.lax.while_loop(collecting, collect, carry)
            reached = ready(run) & (run.state.learner.updates >= budget.updates)
            learns = ready(run) & ~reached
            learn = lambda state: core.learn(self.agent, state, run.keys.learn, updates)
            one = (lambda s: core.select(learns, learn(s), s)) if self.axis else learn
            state = jax.lax.cond(self._any(learns), one, lambda s: s, run.state)
            return run._replace(state=state), log._replace(halted=state.halted | reached)

        return jax.lax.while_loop(running, turn, (run, log))

    def step(self, run: Run, params: Params) -> tuple[Run, Row, Array]:
        """Acts once in every environment.

        Returns:
          The run, the row, and return and length of the episodes that ended in it [B, 2], else 0.
        """
        numbers = self.first + jnp.arange(self.num_envs)
        draws = run.keys.act, run.step, run.timestep, run.actor, numbers
        action, actor, extras = core.act(self.agent.actor, params, *draws, self.workers)
        ended = run.timestep.last()
        episode = run.episode + ended
        spec = self.environment.spec().actions
        check_actions(spec, action, axes=1)
        legal = environments.clip_actions(spec, action, jnp)
        stepped = jax.vmap(self.environment.step)(run.environment, legal)

        def restart():
            choose = lambda new, old: jnp.where(
                ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old
            )
            return jax.tree.map(choose, self._reset(run.keys, episode), stepped)

        # Most steps end no episode, and a reset draws random numbers.
        any_ended = self._any(ended.any())
        environment, timestep = jax.lax.cond(any_ended, restart, lambda: stepped)
        episode_return = jnp.where(ended, 0.0, run.episode_return + timestep.reward)
        episode_length = jnp.where(ended, 0, run.episode_length + 1)
        report = jnp.stack([episode_return, episode_length.astype(jnp.float32)], axis=-1)
        report = jnp.where(timestep.last()[:, None], report, 0.0)
        row = Row(run.timestep, action, extras)
        run = run._replace(
            environment=environment,
            timestep=timestep,
            actor=actor,
            step=run.step + 1,
            episode=episode,
            episode_return=episode_return,
            episode_length=episode_length,
        )
        return run, row, report

    def _reset(self, keys: Keys, episode: Array) -> tuple[Any, dm_env.TimeStep]:
        key = partial(environments.episode_key, keys.environment)
        numbers = self.first + jnp.arange(self.num_envs)
        return jax.vmap(self.environment.reset)(jax.vmap(key)(numbers, episode))

    def _any(self, x: Array) -> Array:
        return x if self.axis is None else jax.lax.pmax(x.astype(jnp.int32), self.axis) > 0

    def _empty_log(self, run: Run, length: int) -> Log:
        row = jax.eval_shape(self.step, run, run.state.learner.params)[1]
        rows = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
        counts = jnp.zeros((length, self.num_envs), bool)
        block = DeviceBlock(rows, run.timestep, run.episode, run.episode_length, counts)
        capacity = -(-max(LOG_SIZE // self.num_envs, 64) // length) * length
        ended = jnp.zeros((capacity, self.num_envs, 2))
        zero = jnp.int32(0)
        return Log(zero, zero, zero, jnp.bool_(True), run.state.halted, ended, block, zero, zero)


def _whole(whole, after, before):
    """Takes a run back to before a block that is not whole, so that a resumed one gets it whole."""
    (run, log), (old_run, old_log) = after, before
    run = core.select(whole, run._replace(state=None), old_run._replace(state=None))
    cut = lambda new, old, sofar: jnp.where(whole, 0, sofar + new - old)
    return run, log._replace(
        cut_steps=cut(log.steps, old_log.steps, log.cut_steps),
        cut_episodes=cut(log.episodes, old_log.episodes, log.cut_episodes),
    )
