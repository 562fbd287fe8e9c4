"""Several runs in one compiled program: seeds and settings, vmapped."""

import functools
import os
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent, AgentConfig
from rlws.environments import JaxEnvironment
from rlws.settings import SettingError, change
from rlws.trainers import core
from rlws.trainers.program import Budget, Program, Run
from rlws.trainers.sharding import over_devices
from rlws.trainers.trainer import Member

AXIS = "members"
# What JAX raises where Python wants the value of a number that is not known yet. None of these is
# a subclass of the others.
UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
SHARE = 0.5  # of the free memory a population may take


class Compiled(NamedTuple):
    """The functions of a population; everything they return has an entry for each member."""

    agents: list[Agent]
    init: Any  # () -> runs
    restore: Any  # runs as host arrays -> runs
    advance: Any  # (runs, Budget) -> runs, Log on the host
    read_totals: Any  # runs -> runs, means of metrics
    params: Any  # runs -> parameters of each member
    updates: Any  # runs -> updates of each member
    halted: Any  # runs -> whether each was


class Population(NamedTuple):
    """How to run members together."""

    config: AgentConfig
    environment: JaxEnvironment
    num_envs: int
    num_devices: int = 1

    def parts(self, members: list[Member]) -> list[list[int]]:
        """Returns the indices of members that are run at once: one program each, and memory enough.

        Settings that are real numbers are data to a program; members that differ in others need
        programs of their own.
        """
        groups: dict[Any, list[int]] = {}
        for i, member in enumerate(members):
            fixed = tuple(sorted((k, repr(v)) for k, v in member.settings.items() if not _real(v)))
            groups.setdefault(fixed, []).append(i)
        parts = []
        for group in groups.values():
            most = self.room(members[group[0]]) if len(group) > 1 else 1
            fitting = [group[i : i + most] for i in range(0, len(group), most)]
            if len(fitting) > 1:
                size = self.member_bytes(members[group[0]]) / 1e6
                text = f"{len(group)} members of {size:,.1f} MB each: {len(fitting)} parts"
                warnings.warn(f"{text}, one after the other, as memory allows", stacklevel=3)
            parts += fitting
        return parts

    def room(self, member: Member) -> int:
        """Returns how many members like this one fit into the free memory, at least 1."""
        return max(1, int(SHARE * free_memory() / self.member_bytes(member)))

    def member_bytes(self, member: Member) -> int:
        """Returns the size of the state and the log of one run in bytes."""
        program = self._program(member.settings, None)
        run, log = jax.eval_shape(lambda: program.advance(program.init(0), Budget(1, 1, 1)))
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((run, log)))

    def compile(self, members: list[Member]) -> Compiled:
        """Returns the program of these members.

        Raises:
          Untraceable: the agent cannot be made, or learn, while a setting's value is not known.
        """
        agents = [self._program(m.settings, None).agent for m in members]
        if len(members) == 1:
            return self._alone(members[0], agents)
        real = {
            k: [m.settings[k] for m in members] for k, v in members[0].settings.items() if _real(v)
        }
        fixed = {k: v for k, v in members[0].settings.items() if k not in real}
        seeds = jnp.array([m.seed for m in members], jnp.uint32)
        values = {k: jnp.array(v, jnp.float32) for k, v in real.items()}

        def program(values):
            return self._program(fixed | values, AXIS)

        vmap = functools.partial(jax.vmap, axis_name=AXIS)
        init = jax.jit(vmap(lambda seed, values: program(values).init(seed)))
        advance = jax.jit(
            vmap(lambda run, values, budget: program(values).advance(run, budget)), donate_argnums=0
        )

        try:  # here, so that an error is found before anything runs; an update is traced, too
            jax.eval_shape(init, seeds, values)
        except UNKNOWN as error:
            if not values:
                raise
            raise Untraceable(
                f"{type(self.config).__module__}: of {', '.join(values)}, at least one cannot vary "
                "within one program, as the agent looks at its value while it is made or learns"
            ) from error

        def step(runs, budget):
            runs, log = advance(runs, values, budget)
            return runs, jax.device_get(log)

        def read_totals(runs):
            totals = jax.device_get(runs.state.totals)
            one = lambda i: core.means(jax.tree.map(lambda x: x[i], totals))
            means = [one(i) for i in range(len(members))]
            zero = jax.tree.map(jnp.zeros_like, runs.state.totals)
            return runs._replace(state=runs.state._replace(totals=zero)), means

        def params(runs):
            everyone = jax.device_get(runs.state.learner.params)
            one = lambda i: jax.tree.map(lambda x: x[i], everyone)
            return [one(i) for i in range(len(members))]

        return Compiled(
            agents,
            lambda: init(seeds, values),
            jax.jit(_copy),
            step,
            read_totals,
            params,
            lambda runs: jax.device_get(runs.state.learner.updates),
            lambda runs: jax.device_get(runs.state.halted),
        )

    def _alone(self, member: Member, agents: list[Agent]) -> Compiled:
        program = self._program(member.settings, None)
        advance = jax.jit(program.advance, donate_argnums=0)
        place = functools.partial(_shard, self.num_devices)

        def step(run, budget):
            run, log = advance(run, Budget(*(int(x[0]) for x in budget)))
            return run, jax.tree.map(lambda x: x[None], jax.device_get(log))

        def read_totals(run):
            state, means = core.read_totals(run.state)
            return run._replace(state=state), [means]

        return Compiled(
            agents,
            lambda: place(jax.jit(program.init)(member.seed)),
            lambda run: place(jax.jit(_copy)(run)),
            step,
            read_totals,
            lambda run: [run.state.learner.params],
            lambda run: [run.state.learner.updates],
            lambda run: np.array([run.state.halted]),
        )

    def _program(self, settings: dict[str, Any], axis: str | None) -> Program:
        agent = change(self.config, settings).make(self.environment.spec())
        return Program(agent, self.environment, self.num_envs, axis)


class Untraceable(SettingError):
    """A setting cannot be data to a compiled program."""


def free_memory() -> int:
    """Returns the bytes the default device can still hold."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _copy(run: Run) -> Run:
    # Memory of its own: what is donated must not be that of the arrays that were read.
    return jax.tree.map(jnp.copy, run)


def _real(value: Any) -> bool:
    return isinstance(value, float | np.floating)


def _shard(num_devices: int, run: Run) -> Run:
    """Splits what has a leading axis of environments among devices; the rest is on all of them."""
    split, whole = over_devices(num_devices)
    fields = ("environment", "timestep", "actor", "episode", "episode_return", "episode_length")
    return whole(run)._replace(**{k: split(getattr(run, k), 0) for k in fields})
