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
from rlws.environments.info import episode_info
from rlws.numerics import streams
from rlws.numerics.counts import at_least
from rlws.numerics.streams import Stream
from rlws.trainers import core, initial
from rlws.trainers.blocks import DeviceBlock
from rlws.trainers.device_run import Budget, Keys, Log, Run, only_whole, select
from rlws.types import Array, Params, Row


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
        state = initial.init(self.agent, self.environment.spec(), seed, self.num_envs)
        return self.begin(seed)._replace(state=state)

    def begin(self, seed: Array | int) -> Run:
        """Returns the state before the first step, but for that of the agent."""
        return self.start(Keys(*(streams.key(seed, Stream[k.upper()]) for k in Keys._fields)))

    def start(self, keys: Keys) -> Run:
        """Returns the same for a run that draws from the streams of these keys."""
        counts = jnp.zeros(self.num_envs, jnp.int32)
        played = initial.initial_actor_state(self.agent.actor, self.num_envs), jnp.int32(0)
        totals = counts, jnp.zeros(self.num_envs), counts
        return Run(keys, None, *self._reset(keys, counts), *played, *totals)

    def advance(self, run: Run, budget: Budget) -> tuple[Run, Log]:
        """Acts, steps, adds and learns until the budget is spent or the log is full."""
        block_length, updates = self.agent.adder.schedule(self.num_envs)
        length = block_length or 1
        _, row, ended = jax.eval_shape(self.step, run, run.state.learner.params)
        log = Log.empty(run, row, length, ended.shape[-1])
        spec = self.environment.spec()

        def ready(run):  # to learn
            return self.agent.adder.ready(run.state.adder)

        def running(carry):
            _, log = carry
            going = self._any(log.live(budget) & (log.steps < budget.report))
            return going & ~self._any(~log.sound) & log.has_room(length)

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
                count = lambda x: jnp.where(live, x.sum(dtype=jnp.int32), 0)
                steps = log.steps + count(~row.timestep.last())
                episodes = log.episodes + count(ended[:, 1] > 0)
                log = log._replace(steps=steps, episodes=episodes)
                return (run, log), (row, jnp.where(live, ended, 0.0), live)

            after, (rows, ended, live) = jax.lax.scan(step, carry, length=length, unroll=length < 2)
            (after, log), before = after, log
            counts = jnp.broadcast_to(live[:, None], (length, self.num_envs))
            block = DeviceBlock(rows, after.timestep, run.episode, run.episode_length, counts)
            log = log.add(block, spec, ended)
            whole = live.all()
            added = jnp.where(whole, length, 0)
            adder = core.add(self.agent.adder, run.state.adder, rows, added, after.timestep)
            if length > 1 or self.axis:
                after, log = only_whole(whole, (after, log), (run, before))
            return after._replace(state=run.state._replace(adder=adder)), log

        def turn(carry):
            # An inner loop, so that the update stands outside it: vmapped over seeds it would
            # otherwise be computed at every step.
            run, log = jax.lax.while_loop(collecting, collect, carry)
            reached = ready(run) & at_least(run.state.learner.updates, budget.updates)
            learns = ready(run) & ~reached
            learn = lambda state: core.learn(self.agent, state, run.keys.learn, updates)
            one = (lambda s: select(learns, learn(s), s)) if self.axis else learn
            state = jax.lax.cond(self._any(learns), one, lambda s: s, run.state)
            return run._replace(state=state), log._replace(halted=state.halted | reached)

        return jax.lax.while_loop(running, turn, (run, log))

    def step(self, run: Run, params: Params) -> tuple[Run, Row, Array]:
        """Acts once in every environment.

        Returns:
          The run, the row, and return, length and what is kept of the info of the episodes that
          ended in it [B, 2 + k], else 0.
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
        if (info := episode_info(self.environment, environment)) is not None:
            report = jnp.concatenate([report, info], axis=-1)
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
