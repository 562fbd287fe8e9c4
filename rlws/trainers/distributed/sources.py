"""What a worker does: plays blocks in environments of its own, by parameters it is sent."""

import contextlib
from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np

from rlws import environments
from rlws.agent import AgentConfig
from rlws.environments import resolve
from rlws.environments.checks import check_rules
from rlws.numerics import trees
from rlws.numerics.cache import enable_cache
from rlws.trainers.acting import compile_acting
from rlws.trainers.blocks import rules_of
from rlws.trainers.device_run import Run
from rlws.trainers.host_environments import make_environments
from rlws.trainers.program import Program
from rlws.trainers.rollout import Ends, Rollout
from rlws.trainers.trainer import Snapshot
from rlws.types import Array, EnvironmentSpec, Row


class Task(NamedTuple):
    """What a worker is to play; all of it can be sent to another process."""

    config: AgentConfig
    environment: Any  # as for `Trainer.train`
    seed: int  # of the run
    num_envs: int  # environments of this worker
    first: int  # the number of the first of them among those of the run
    workers: int  # of the run
    vectorization: str  # as of `HostTrainer`, or "device"
    ends: Ends  # of a block


class Played(NamedTuple):
    """A block of experience, and where the worker stands after it."""

    rows: Row  # leaves [capacity, B, ...], NumPy
    length: int  # of them are filled
    timestep: dm_env.TimeStep  # that follows, leaves [B, ...]
    ended: np.ndarray  # [n, 2 + k], returns, lengths and info of episodes as they ended
    after: Snapshot  # a worker that goes on from it goes on as this one would
    seconds: float = 0.0  # that playing it took
    warnings: tuple[str, ...] = ()  # as of `HostEnvironments`


class Source:
    """Plays blocks. Everything random is a function of the run's seed and counters."""

    def play(self, params: list[Array], learned: bool) -> Played:
        """Returns the next block.

        Args:
          params: to act by, those leaves which the actor reads.
          learned: whether there was a batch after the block before.
        """
        raise NotImplementedError

    def asked(self) -> tuple[str, int] | None:
        """Returns which environment is being stepped, and how far it is; None: none is."""
        return None


def make_source(task: Task, saved: Snapshot | None = None) -> Source:
    """Returns the source of a task, at its beginning or where one was saved."""
    enable_cache()
    kind = DeviceSource if task.vectorization == "device" else HostSource
    return kind(task, saved)


class HostSource(Source):
    """Environments stepped from Python, as by the HostTrainer."""

    def __init__(self, task: Task, saved: Snapshot | None):
        begin = 0 if saved is None else saved.facts["rows"]
        places = task.num_envs, task.vectorization, task.seed, begin, task.first
        self._envs = envs = make_environments(task.environment, *places)
        agent = task.config.make(envs.spec)
        own = task.seed, task.ends, task.first, task.workers
        self._rollout = Rollout(agent, envs, *own)
        if saved is not None:
            self._rollout.restore(*saved)
        self._fresh = saved is None

    def play(self, params, learned):
        rollout, envs = self._rollout, self._envs
        if not self._fresh:
            rollout.renew(learned)
        self._fresh = False
        rollout.advance(params, lambda: False)
        following, block = rollout.following(), rollout.block
        ended = envs.table(envs.ended)
        warnings = tuple(envs.warnings)
        envs.ended.clear()
        envs.warnings.clear()
        arrays, facts = rollout.save([])
        # The block itself is on its way already.
        facts["held"] = 0
        arrays["rows"] = jax.tree.map(lambda x: x[:0], arrays["rows"])
        after = Snapshot(trees.flatten(arrays), facts)
        return Played(block.rows, block.length, following, ended, after, warnings=warnings)

    def asked(self):
        return self._envs.asked()


class DeviceSource(Source):
    """Environments written in JAX: a block is one compiled scan."""

    def __init__(self, task: Task, saved: Snapshot | None):
        environment = resolve.device(task.environment)
        self._spec = spec = environment.spec()
        agent = task.config.make(spec)
        self._first = task.first
        own = task.first, task.workers
        program = Program(agent, environment, task.num_envs, None, *own)
        fill = compile_acting(agent, spec, task.num_envs).params.fill

        def play(run: Run, read: list[Array]):
            def step(run, _):
                run, row, ended = program.step(run, params)
                return run, (row, ended)

            params = fill(read)
            run, (rows, ended) = jax.lax.scan(step, run, length=task.ends.length)
            return run, rows, ended

        self._advance = jax.jit(play, donate_argnums=0)
        begin = jax.jit(partial(program.begin, task.seed))
        self._run: Run = begin()
        if saved is not None:
            run = trees.restore(self._run, saved.arrays, "run")
            self._run = jax.tree.map(jax.numpy.array, run)

    def play(self, params, learned):
        self._run, rows, ended = self._advance(self._run, params)
        rows, ended = jax.device_get((rows, ended))
        timestep, length = jax.tree.map(np.array, self._run.timestep), len(rows.timestep.reward)
        row = int(self._run.step) - length
        who = lambda t, i: f"environment {self._first + i}, row {row + t + 1}"
        check_rules(rules_of(self._spec, rows, timestep), who)
        ended = ended.reshape(-1, ended.shape[-1])
        after = Snapshot(trees.flatten({"run": self._run}), {})
        played = ended[ended[:, 1] > 0].astype(np.float64)
        return Played(rows, length, timestep, played, after)


def spec_of(task: Task) -> EnvironmentSpec:
    """Returns the spec of the environments of a task; makes one to ask it."""
    if task.vectorization == "device":
        return resolve.device(task.environment).spec()
    if task.vectorization == "serial":  # which need not be reset
        one = resolve.host(task.environment, task.seed, task.first)
        with contextlib.closing(one):
            return environments.spec(one)
    several = make_environments(task.environment, 1, task.vectorization, task.seed)
    with contextlib.closing(several):
        return several.spec
