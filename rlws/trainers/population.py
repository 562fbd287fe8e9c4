"""Several runs in one compiled program: seeds and settings, vmapped."""

import warnings
from collections.abc import Callable
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
from rlws.trainers import device_evaluation, evaluation
from rlws.trainers.device_run import Budget, Run
from rlws.trainers.learning import copied
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
            most = self.room([members[i] for i in group]) if len(group) > 1 else 1
            fitting = [group[i : i + most] for i in range(0, len(group), most)]
            if len(fitting) > 1:
                size = self.member_bytes([members[i] for i in group]) / 1e6
                text = f"{len(group)} members of {size:,.1f} MB each: {len(fitting)} parts"
                warnings.warn(f"{text}, one after the other, as memory allows", stacklevel=3)
            parts += fitting
        return parts

    def room(self, members: list[Member]) -> int:
        """Returns how many members like these fit into the free memory, at least 1."""
        return max(1, int(SHARE * free_memory() / self.member_bytes(members)))

    def member_bytes(self, members: list[Member]) -> int:
        """Returns the size of the state and the log of one run of several in bytes."""
        # Of the very program that will run, as tracing another takes as long as this one's.
        init, advance, seeds, values = self._traced(members)
        budget = Budget(*np.ones((len(Budget._fields), *np.shape(seeds)), np.int32))
        try:
            run = jax.eval_shape(init, seeds, values)
            whole = jax.eval_shape(advance, run, values, budget)
        except UNKNOWN:
            return self.member_bytes(members[:1])
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(whole)) // len(members)

    def compile(self, members: list[Member]) -> Compiled:
        """Returns the program of these members; of equal ones, the same that was compiled before.

        Raises:
          Untraceable: the agent cannot be made, or learn, while a setting's value is not known.
        """
        spec = self.environment.spec()
        agents = [change(self.config, m.settings).make(spec) for m in members]
        several = len(members) > 1
        place = partial(_shard, 1 if several else self.num_devices)
        init, advance, seeds, values = self._traced(members)
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

        restore = lambda run: place(copied(run))
        return Compiled(agents, lambda: place(init(seeds, values)), restore, step)

    def evaluate(self, members: list[Member], params: Any, episodes: int) -> list[Callable]:
        """Plays episodes with each of several members; returns what says what each came to.

        They are those that `evaluation.evaluator` plays with the seed of the member.

        Args:
          members: of one program.
          params: of all of them.
          episodes: of each.
        """
        seeds, values, fixed = self._varied(members)
        config = change(self.config, fixed)
        play = _player(config, self.environment, episodes, MEMBERS, bool(values))
        keys = jax.tree.map(lambda *x: np.stack(x), *map(evaluation.keys, np.asarray(seeds)))
        found = jax.device_get(play(params, values, *keys))
        one = lambda i: jax.tree.map(itemgetter(i), found)
        return [partial(one(i).read, self.environment) for i in range(len(members))]

    def _traced(self, members):
        """Returns `init` and `advance` of a program, with the seeds and the values they are for."""
        seeds, values, fixed = self._varied(members)
        axis = MEMBERS if len(members) > 1 else None
        how = change(self.config, fixed), self.environment, self.num_envs, axis
        return *_functions(*how, bool(values)), seeds, values

    def _varied(self, members):
        """Returns the seeds of members, what varies within their program, and what is fixed."""
        fixed = members[0].settings
        if len(members) == 1:
            return members[0].seed, dict[str, Array](), fixed
        real = [k for k, v in fixed.items() if _real(v)]
        values = {k: jnp.array([m.settings[k] for m in members], jnp.float32) for k in real}
        seeds = jnp.array([m.seed for m in members], jnp.uint32)
        return seeds, values, {k: v for k, v in fixed.items() if k not in real}


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


@Remembered
def _player(config: AgentConfig, environment: JaxEnvironment, episodes: int, axis: str, vary: bool):
    """Returns the compiled evaluation of all members of a program."""

    def play(params, values, act_key, reset_key):
        agent = (change(config, values) if vary else config).make(environment.spec())
        how = agent.evaluator, environment, episodes, evaluation.MAX_STEPS, axis
        return device_evaluation.device_play(*how)(params, act_key, reset_key)

    return jax.jit(jax.vmap(play, axis_name=axis))


class Untraceable(SettingError):
    """A setting cannot be data to a compiled program."""


def _real(value: Any) -> bool:
    return isinstance(value, float | np.floating)


def _shard(num_devices: int, run: Run) -> Run:
    """Splits what has a leading axis of environments among devices; the rest is on all of them."""
    split, whole = over_devices(num_devices)
    fields = ("environment", "timestep", "actor", "episode", "episode_return", "episode_length")
    return whole(run)._replace(**{k: split(getattr(run, k), 0) for k in fields})
