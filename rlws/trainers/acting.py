"""Acting from the host: one dispatch a step, which takes only the arrays the actor reads.

Handing an array to a compiled program costs about as much as a small layer computes. An actor sees
all parameters and the whole timestep, and usually reads the policy's and the observation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from rlws.agent import Agent
from rlws.numerics import streams
from rlws.numerics.memo import remembered_of
from rlws.numerics.sequential import sequential
from rlws.numerics.streams import Stream
from rlws.trainers import core, initial
from rlws.types import Array, EnvironmentSpec, Params, Row


class Reads(NamedTuple):
    """Which leaves of a tree something reads, and the shapes of all."""

    live: list[bool]
    shapes: list[Any]
    tree: Any

    def take(self, tree: Any) -> list[Array]:
        """Returns the leaves that are read."""
        return [x for x, live in zip(jax.tree.leaves(tree), self.live, strict=True) if live]

    def fill(self, read: list[Array]) -> Any:
        """Returns the tree with zeros, which no one looks at, for the other leaves."""
        remaining = iter(read)
        leaves = (
            next(remaining) if live else jnp.zeros(x.shape, x.dtype)
            for x, live in zip(self.shapes, self.live, strict=True)
        )
        return self.tree.unflatten(leaves)


class Acting(NamedTuple):
    """The compiled program, and what it reads."""

    # (read parameters, clock, read timestep, actor state) -> actions, actor state, extras, clock
    program: Any
    params: Reads
    timestep: Reads
    row: Row  # of one environment, zeros, NumPy


def clock(seed: int, step: int = 0) -> np.ndarray:
    """Returns what actors' draws are a function of: their stream's key and the step, uint32 [3].

    In one array, as each that is handed over costs time.
    """
    return np.array([*np.asarray(streams.key(seed, Stream.ACT)), step], np.uint32)


def act(agent: Agent, params: Params, clock: Array, timestep: Any, state: Any, *where: Any) -> Any:
    """Returns what `core.act` does, and the clock of the next step."""
    answer = core.act(agent.actor, params, clock[:2], clock[2], timestep, state, *where)
    return *answer, jnp.asarray(clock).at[2].add(1)


@remembered_of
def compile_acting(
    agent: Agent, spec: EnvironmentSpec, num_envs: int, first: int = 0, workers: int = 1
) -> Acting:
    """Returns the program in which the actor of `agent` acts in `num_envs` environments.

    Args:
      agent: acts.
      spec: of one environment.
      num_envs: B.
      first: the number of environment 0 among those of the run.
      workers: how many processes act in so many environments.
    """
    params = jax.eval_shape(lambda: agent.learner.init(initial.seed_key()).params)
    row = initial.example_row(agent, spec, params)
    repeat = lambda x: jax.ShapeDtypeStruct((num_envs, *jnp.shape(x)), x.dtype)
    timestep = jax.tree.map(repeat, row.timestep)
    (params_shapes, params_tree), (shapes, tree) = map(jax.tree.flatten, (params, timestep))
    where = first + np.arange(num_envs), workers
    answer = lambda *args: act(agent, *args, *where)
    state = initial.initial_actor_state(agent.actor, num_envs)
    live = _live(jax.make_jaxpr(answer)(params, jnp.zeros(3, jnp.uint32), timestep, state).jaxpr)
    count = len(params_shapes)
    read_params = Reads(live[:count], params_shapes, params_tree)
    read_timestep = Reads(live[count + 1 :][: len(shapes)], shapes, tree)

    def program(params, clock, timestep, state):
        return answer(read_params.fill(params), clock, read_timestep.fill(timestep), state)

    return Acting(sequential(program), read_params, read_timestep, jax.device_get(row))


def _live(jaxpr: Any) -> list[bool]:
    """Returns which inputs some output depends on."""
    needed = {id(x) for x in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(x) in needed for x in equation.outvars):
            needed.update(id(x) for x in equation.invars if not isinstance(x, Literal))
    return [id(x) in needed for x in jaxpr.invars]
