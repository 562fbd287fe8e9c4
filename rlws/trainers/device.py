"""Training in one compiled program: environment, acting, adding and learning on the device."""

from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws import environments, streams
from rlws.environments import JaxEnvironment, resolve
from rlws.settings import SettingError
from rlws.streams import Stream
from rlws.trainers import cycle
from rlws.trainers.trainer import Progress, Trainer, limits, next_multiple
from rlws.types import Array, Key, Row

LOG_SIZE = 2**16  # (steps of all environments) a chunk of the program may log


class DeviceTrainer(Trainer):
    """Runs a JaxEnvironment, vmapped over `num_envs`, in one scanned program.

    The program runs in chunks of one report, or less where its episode log is full.
    """

    def check(self, environment):
        resolve.device(environment)

    def train(self, config, environment, *, seed=0, steps=None, episodes=None, report_period=1000):
        last_step, last_episode = limits(steps, episodes)
        environment = resolve.device(environment)
        spec = environment.spec()
        agent = config.make(spec)
        program = Program(agent, environment, self.num_envs)
        run = jax.jit(program.init)(seed)
        advance = jax.jit(program.advance, donate_argnums=0)
        total_steps = total_episodes = 0
        next_report, logs = 0.0, list[np.ndarray]()

        while True:
            spent = total_steps >= last_step or total_episodes >= last_episode
            if total_steps >= next_report or spent:
                state, metrics = cycle.read_totals(run.state)
                run = run._replace(state=state)
                returns, lengths = np.concatenate([np.zeros((0, 2)), *logs]).T
                yield Progress(
                    total_steps,
                    total_episodes,
                    int(state.learner.updates),
                    returns,
                    lengths,
                    metrics,
                    agent,
                    state.learner.params,
                )
                if spent:
                    return
                logs, next_report = [], min(next_multiple(total_steps, report_period), last_step)
            most = min(last_episode - total_episodes, 2**31 - 1)
            run, log = advance(run, min(next_report - total_steps, 2**31 - 1), most)
            log = jax.device_get(log)
            if not log.finite:
                raise SettingError(
                    f"{type(environment).__name__}: observations and rewards must be finite, got "
                    f"NaN or infinity about step {total_steps + log.steps}; mend the environment"
                )
            total_steps += int(log.steps)
            total_episodes += int(log.episodes)
            ended = log.ended[: log.rows].reshape(-1, 2)
            logs.append(ended[ended[:, 1] > 0].astype(np.float64))


class Keys(NamedTuple):
    """The keys of the streams a run draws from, uint32 [2] each."""

    act: Key
    learn: Key
    environment: Key


class Run(NamedTuple):
    """The whole state of a run on the device; leaves of B environments are [B, ...]."""

    keys: Keys
    state: cycle.State
    environment: Any
    timestep: dm_env.TimeStep
    actor: Any
    step: Array  # counts rows
    episode: Array  # [B], counts the episodes of each environment
    episode_return: Array  # [B], so far
    episode_length: Array  # [B], so far


class Log(NamedTuple):
    """What happened in one chunk."""

    steps: Array
    episodes: Array
    rows: Array  # rows written
    finite: Array
    ended: Array  # [rows, B, 2] the return and length of each episode that ended, else 0


class Program(NamedTuple):
    """The pure functions of a run on the device."""

    agent: Any
    environment: JaxEnvironment
    num_envs: int

    @property
    def block_length(self) -> int:
        # An adder of episodes is looked at after each step, as an episode may end with any.
        return self.agent.adder.block_length or 1

    def init(self, seed: int) -> Run:
        """Returns the state before the first step."""
        keys = Keys(*(streams.key(seed, Stream[name.upper()]) for name in Keys._fields))
        spec, count = self.environment.spec(), self.num_envs
        counts = jnp.zeros(count, jnp.int32)
        environment, timestep = self._reset(keys, counts)
        return Run(
            keys,
            cycle.init(self.agent, spec, seed, count),
            environment,
            timestep,
            cycle.initial_actor_state(self.agent.actor, count),
            jnp.int32(0),
            counts,
            jnp.zeros(count),
            counts,
        )

    def advance(self, run: Run, steps: Array, episodes: Array) -> tuple[Run, Log]:
        """Runs for so many more environment steps or episodes, or until the log is full."""
        capacity = -(-max(LOG_SIZE // self.num_envs, 64) // self.block_length) * self.block_length
        ended = jnp.zeros((capacity, self.num_envs, 2))
        zero = jnp.int32(0)
        log = Log(zero, zero, zero, jnp.bool_(True), ended)

        def running(carry):
            _, log = carry
            more = (log.steps < steps) & (log.episodes < episodes) & (log.rows < capacity)
            return more & log.finite

        def collecting(carry):
            return running(carry) & ~self.agent.adder.ready(carry[0].state.adder)

        def collect(carry):
            (run, log), rows = self._block(*carry)
            adder = self.agent.adder.add(run.state.adder, rows, self.block_length)
            return run._replace(state=run.state._replace(adder=adder)), log

        def turn(carry):
            # An inner loop, so that the update stands outside it: vmapped over seeds it would
            # otherwise be computed at every step.
            run, log = jax.lax.while_loop(collecting, collect, carry)
            learn = lambda state: cycle.learn(self.agent, state, run.keys.learn)
            ready = self.agent.adder.ready(run.state.adder)
            return run._replace(state=jax.lax.cond(ready, learn, lambda s: s, run.state)), log

        return jax.lax.while_loop(running, turn, (run, log))

    def _block(self, run: Run, log: Log) -> tuple[tuple[Run, Log], Row]:
        def step(run, _):
            run, row, ended = self._step(run)
            return run, (row, ended)

        run, (rows, ended) = jax.lax.scan(step, run, length=self.block_length)
        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(rows.timestep)]
        log = Log(
            log.steps + (rows.timestep.step_type != dm_env.StepType.LAST).sum(),
            log.episodes + (ended[..., 1] > 0).sum(),
            log.rows + self.block_length,
            log.finite & jnp.stack(finite).all(),
            jax.lax.dynamic_update_slice_in_dim(log.ended, ended, log.rows, 0),
        )
        return (run, log), rows

    def _step(self, run: Run) -> tuple[Run, Row, Array]:
        params = run.state.learner.params
        action, actor, extras = cycle.act(
            self.agent.actor, params, run.keys.act, run.step, run.timestep, run.actor
        )
        ended = run.timestep.last()
        episode = run.episode + ended
        stepped = jax.vmap(self.environment.step)(run.environment, action)

        def restart():
            choose = lambda new, old: jnp.where(
                ended.reshape(ended.shape + (1,) * (old.ndim - 1)), new, old
            )
            return jax.tree.map(choose, self._reset(run.keys, episode), stepped)

        # Most steps end no episode, and a reset draws random numbers.
        environment, timestep = jax.lax.cond(ended.any(), restart, lambda: stepped)
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
        episode_keys = jax.vmap(key)(jnp.arange(self.num_envs), episode)
        return jax.vmap(self.environment.reset)(episode_keys)
