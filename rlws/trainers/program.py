"""Environment, acting, adding and learning as one pure function of the state of a run."""

from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws import environments
from rlws.agent import Agent
from rlws.environments import JaxEnvironment, rules
from rlws.numerics import streams
from rlws.numerics.streams import Stream
from rlws.trainers import core
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


class Log(NamedTuple):
    """What happened in a chunk of the program."""

    steps: Array  # environment steps
    episodes: Array  # episodes ended
    rows: Array  # rows of `ended` in use
    sound: Array  # whether nothing was wrong with actions and timesteps; else `wrong` is what
    wrong: "Wrong"
    halted: Array  # whether an update was not
    ended: Array  # [rows, B, 2], return and length of each episode that ended, else 0
    # Of these, steps and episodes in a block that the budget cut short: the run stands before it.
    cut_steps: Array
    cut_episodes: Array


class Wrong(NamedTuple):
    """The first thing that was wrong with what was played; see `rules.rules`."""

    rule: Array | int = 0  # which of the rules is broken
    environment: Array | int = 0
    episode: Array | int = 0
    step: Array | int = 0  # of the episode
    value: Array | float = 0.0  # that breaks it


class Budget(NamedTuple):
    """How far a chunk may go, in environment steps and episodes from its start."""

    report: Array | int  # steps: the block in which they are reached ends the chunk
    steps: Array | int  # of the run: the very row in which they are reached ends it
    episodes: Array | int  # of the run, likewise
    updates: Array | int = 2**31 - 1  # of the run, in all: in place of the next one it halts


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
        keys = Keys(*(streams.key(seed, Stream[name.upper()]) for name in Keys._fields))
        count = self.num_envs
        counts = jnp.zeros(count, jnp.int32)
        environment, timestep = self._reset(keys, counts)
        return Run(
            keys,
            None,
            environment,
            timestep,
            core.initial_actor_state(self.agent.actor, count),
            jnp.int32(0),
            counts,
            jnp.zeros(count),
            counts,
        )

    def advance(self, run: Run, budget: Budget) -> tuple[Run, Log]:
        """Runs until the budget is spent or the log is full."""
        block_length, updates = self.agent.adder.schedule(self.num_envs)
        length = block_length or 1
        capacity = -(-max(LOG_SIZE // self.num_envs, 64) // length) * length
        zero = jnp.int32(0)
        ended = jnp.zeros((capacity, self.num_envs, 2))
        wrong = Wrong(zero, zero, zero, zero, jnp.float32(0))
        log = Log(zero, zero, zero, jnp.bool_(True), wrong, run.state.halted, ended, zero, zero)
        live = partial(_live, budget)

        def running(carry):
            _, log = carry
            last = jnp.where(live(log), log.steps, budget.report)
            more = self._any(live(log)) & self._any(last < budget.report)
            return more & (log.rows <= capacity - length)

        def waiting(carry):  # for an update
            return self.agent.adder.ready(carry[0].state.adder)

        def collecting(carry):
            return running(carry) & self._any(live(carry[1]) & ~waiting(carry))

        def collect(carry):
            run, log = carry
            idle = waiting(carry) if self.axis and block_length is None else None
            after, log, rows, added = self._block(run, log, live, idle, length)
            whole = added == length
            added = jnp.where(whole, length, 0)
            adder = self.agent.adder.add(run.state.adder, rows, added, after.timestep)
            if length > 1:
                after, log = _whole(whole, (after, log), (run, carry[1]))
            return after._replace(state=run.state._replace(adder=adder)), log

        def turn(carry):
            # An inner loop, so that the update stands outside it: vmapped over seeds it would
            # otherwise be computed at every step.
            run, log = jax.lax.while_loop(collecting, collect, carry)
            ready = waiting((run, log))
            reached = ready & (run.state.learner.updates >= budget.updates)
            ready &= ~reached
            learn = lambda state: core.learn(self.agent, state, run.keys.learn, updates)
            one = (lambda s: core.select(ready, learn(s), s)) if self.axis else learn
            state = jax.lax.cond(self._any(ready), one, lambda s: s, run.state)
            return run._replace(state=state), log._replace(halted=state.halted | reached)

        return jax.lax.while_loop(running, turn, (run, log))

    def _any(self, x: Array) -> Array:
        return x if self.axis is None else jax.lax.pmax(x.astype(jnp.int32), self.axis) > 0

    def _block(self, run, log, live, idle, length):
        """Returns run and log after a block of this length, its rows, and how many of them count.

        `idle` runs, those of a population that have a batch before others do, stand still.
        """

        def body(carry):
            t, run, log, rows, added = carry
            here = live(log) if idle is None else live(log) & ~idle
            after, row, ended = self.step(run, params)
            run = after if idle is None else core.select(here, after, run)
            log = log._replace(
                steps=log.steps + jnp.where(here, (~row.timestep.last()).sum(), 0),
                episodes=log.episodes + jnp.where(here, (ended[:, 1] > 0).sum(), 0),
                rows=log.rows + 1,
                ended=_write(log.ended, jnp.where(here, ended, 0.0), log.rows),
            )
            rows = jax.tree.map(lambda buffer, x: _write(buffer, x, t), rows, row)
            return t + 1, run, log, rows, added + here

        begun = run
        params = run.state.learner.params
        row = jax.eval_shape(self.step, run, params)[1]
        rows = jax.tree.map(lambda x: jnp.zeros((length, *x.shape), x.dtype), row)
        carry = (jnp.int32(0), run, log, rows, jnp.int32(0))
        if length == 1:
            carry = body(carry)
        else:
            more = lambda carry: (carry[0] < length) & self._any(live(carry[2]))
            carry = jax.lax.while_loop(more, body, carry)
        t, run, log, rows, added = carry
        # Of a population, one that is done plays on with the others; that does not count.
        counts = (jnp.arange(length) < added)[:, None]
        after = jax.tree.map(partial(_following, t), rows.timestep, run.timestep)
        actions, step_type = self.environment.spec().actions, rows.timestep.step_type
        found = rules.rules(actions, rows.action, step_type, after, jnp)
        whole = lambda bad: bad.reshape(*bad.shape[:2], -1).any(-1)
        broken = jnp.stack([whole(rule.broken) & counts for rule in found], 1)  # [T, rules, B]
        wrong = log.sound & broken.any()
        find = lambda: self._first_wrong(begun, rows.timestep.last() & counts, found, broken)
        first = jax.lax.cond(self._any(wrong), find, lambda: log.wrong)
        log = log._replace(sound=log.sound & ~wrong, wrong=core.select(wrong, first, log.wrong))
        return run, log, rows, added

    def _first_wrong(self, begun, ended, found, broken):
        """Returns the first of the rules found that a block breaks, and where.

        `begun` is the run before it, `ended` [T, B] says which of its rows end an episode.
        """
        t, rule, i = jnp.unravel_index(jnp.argmax(broken), broken.shape)

        def value(rule):
            x, bad = rule.x[t, i].reshape(-1), rule.broken[t, i].reshape(-1)
            return x[jnp.argmax(bad)].astype(jnp.float32)

        # Row t leads to timestep t + 1. After each LAST, a new episode.
        index = jnp.arange(len(ended))
        ends = ended[:, i] & (index <= t)
        last = jnp.where(ends, index, -1).max()
        step = jnp.where(last < 0, begun.episode_length[i] + t + 1, t - last)
        number = lambda x: x.astype(jnp.int32)
        episode = number(begun.episode[i] + ends.sum())
        chosen = jnp.stack([value(one) for one in found])[rule]
        return Wrong(number(rule), number(self.first + i), episode, number(step), chosen)

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
        stepped = jax.vmap(self.environment.step)(run.environment, self._legal(action))

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

    def _legal(self, action: Any) -> Any:
        return environments.clip_actions(self.environment.spec().actions, action, jnp)

    def _reset(self, keys: Keys, episode: Array) -> tuple[Any, dm_env.TimeStep]:
        key = partial(environments.episode_key, keys.environment)
        numbers = self.first + jnp.arange(self.num_envs)
        episode_keys = jax.vmap(key)(numbers, episode)
        return jax.vmap(self.environment.reset)(episode_keys)


def _following(t: Array, rows: Array, last: Array) -> Array:
    """Returns what came after each of the first t rows [T, B, ...], and `last` [B, ...] at last."""
    shifted = jnp.concatenate([rows[1:], last[None]])
    return shifted if len(rows) == 1 else shifted.at[t - 1].set(last)


def _live(budget: Budget, log: Log) -> Array:
    fine = log.sound & ~log.halted
    return (log.steps < budget.steps) & (log.episodes < budget.episodes) & fine


def _whole(whole, after, before):
    """Takes a run back to before a block that is not whole, so that a resumed one gets it whole."""
    (run, log), (old_run, old_log) = after, before
    run = core.select(whole, run._replace(state=None), old_run._replace(state=None))
    cut = lambda new, old, sofar: jnp.where(whole, 0, sofar + new - old)
    return run, log._replace(
        cut_steps=cut(log.steps, old_log.steps, log.cut_steps),
        cut_episodes=cut(log.episodes, old_log.episodes, log.cut_episodes),
    )


def _write(buffer: Array, x: Array, index: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(buffer, x, index, 0)
