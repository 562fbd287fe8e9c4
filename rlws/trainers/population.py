"""Several runs in one compiled program: seeds and settings, vmapped."""

import warnings
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent, AgentConfig
from rlws.environments import JaxEnvironment
from rlws.learner import MEMBERS
from rlws.numerics.memo import Remembered
from rlws.settings import SettingError, change
from rlws.trainers.device_run import Budget, Run
from rlws.trainers.memory import free_memory
from rlws.trainers.program import Program
from rlws.trainers.sharding import over_devices
from rlws.trainers.trainer import Member
from rlws.types import Array

# What JAX raises where Python wants the value of a number that is not known yet. None of these is
# a subclass of the others.
UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
SHARE = 0.5  # of the free memory a population may take


class Compiled(NamedTuple):
    """Runs in one program; several have an axis of members, one by itself has none."""

    agents: list[Agent]
    init: Any  # () -> runs
    restore: Any  # runs as host arrays -> runs
    advance: Any  # (runs, Budget of each) -> runs, Log on the host, the last block of its own

    def split(self, tree: Any) -> list[Any]:
        """Returns each member's part of a tree."""
        if len(self.agents) == 1:
            return [tree]
        tree = jax.device_get(tree)
        return [jax.tree.map(itemgetter(i), tree) for i in range(len(self.agents))]

    def read_totals(self, runs: Run) -> tuple[Run, list[dict[str, float]]]:
        """Returns runs with their totals set to zero, and the means of the metrics of each."""
        state = runs.state
        means = [totals.means() for totals in self.split(state.totals)]
        return runs._replace(state=state._replace(totals=state.totals.zero())), means


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
        agent = self._config(member.settings).make(self.environment.spec())
        program = Program(agent, self.environment, self.num_envs)
        run, log = jax.eval_shape(lambda: program.advance(program.init(0), Budget(1, 1, 1)))
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((run, log)))

    def compile(self, members: list[Member]) -> Compiled:
        """Returns the program of these members; of equal ones, the same that was compiled before.

        Raises:
          Untraceable: the agent cannot be made, or learn, while a setting's value is not known.
        """
        agents = [self._config(m.settings).make(self.environment.spec()) for m in members]
        fixed, several = members[0].settings, len(members) > 1
        place = partial(_shard, 1 if several else self.num_devices)
        seeds: Any = members[0].seed
        values = dict[str, Array]()
        if several:
            real = [k for k, v in fixed.items() if _real(v)]
            values = {k: jnp.array([m.settings[k] for m in members], jnp.float32) for k in real}
            fixed = {k: v for k, v in fixed.items() if k not in real}
            seeds = jnp.array([m.seed for m in members], jnp.uint32)
        how = self._config(fixed), self.environment, self.num_envs, MEMBERS if several else None
        init, advance = _functions(*how, bool(values))
        try:  # here, so that an error is found before anything runs; an update is traced, too
            jax.eval_shape(init, seeds, values)
        except UNKNOWN as error:
            if not values:
                raise
            raise Untraceable(
                f"{type(self.config).__module__}: of {', '.join(values)}, at least one cannot vary "
                "within one program, as the agent looks at its value while it is made or learns"
            ) from error

        def step(run, budgets):
            join = lambda *x: np.stack(x) if several else x[0]
            run, log = advance(run, values, jax.tree.map(join, *budgets))
            return run, jax.device_get(log._replace(block=None)), log.block

        restore = lambda run: place(_copy(run))
        return Compiled(agents, lambda: place(init(seeds, values)), restore, step)

    def _config(self, settings: dict[str, Any]) -> AgentConfig:
        return change(self.config, settings)


@Remembered
def _functions(
    config: AgentConfig, environment: JaxEnvironment, num_envs: int, axis: str | None, vary: bool
):
    """Returns the compiled `init` and `advance` of a program, which see settings that vary."""
    made = lambda config: Program(config.make(environment.spec()), environment, num_envs, axis)
    fixed = None if vary else made(config)
    program: Any = lambda values: fixed or made(change(config, values))

    init: Any = lambda seed, values: program(values).init(seed)
    advance: Any = lambda run, values, budget: program(values).advance(run, budget)
    if axis is not None:
        init, advance = (jax.vmap(f, axis_name=axis) for f in (init, advance))
    return jax.jit(init), jax.jit(advance, donate_argnums=0)


class Untraceable(SettingError):
    """A setting cannot be data to a compiled program."""


@jax.jit
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
