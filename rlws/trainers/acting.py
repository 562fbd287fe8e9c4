"""Acting from the host: one dispatch a step, which takes only the arrays the actor reads.

Handing an array to a compiled program costs about as much as a small layer computes. An actor sees
all parameters and the whole timestep, and usually reads the policy's and the observation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from rlws.agent import Agent
from rlws.numerics.sequential import sequential
from rlws.trainers import core
from rlws.types import Array, Key, Params, Row


class Reads(NamedTuple):
    """Which leaves of a tree something reads, and the shapes of the others."""

    live: list[bool]
    leaves: list[Any]  # arrays, or their shapes
    tree: Any

    def take(self, tree: Any) -> list[Array]:
        """Returns the leaves that are read."""
        return [x for x, live in zip(jax.tree.leaves(tree), self.live, strict=True) if live]

    def fill(self, read: list[Array]) -> Any:
        """Returns the tree with zeros, which no one looks at, for the other leaves."""
        remaining = iter(read)
        leaves = (
            next(remaining) if live else jnp.zeros(x.shape, x.dtype)
            for x, live in zip(self.leaves, self.live, strict=True)
        )
        return self.tree.unflatten(leaves)


class Acting(NamedTuple):
    """The compiled program, and what it reads."""

    program: Any  # (read parameters, step, read timestep, actor state) -> actions, state, extras
    params: Reads
    timestep: Reads


def compile_acting(
    agent: Agent,
    params: Params,
    row: Row,
    num_envs: int,
    act_key: Key,
    first: int = 0,
    workers: int = 1,
) -> Acting:
    """Returns the program that acts in `num_envs` environments.

    Args:
      agent: its `actor` acts.
      params: of the agent; only their shapes matter, as those of `row`, a row of one environment.
      num_envs: B.
      act_key: of the stream the actor draws from.
      first: the number of environment 0 among those of the run.
      workers: how many processes act in so many environments.
    """

    def act(params, step, timestep, state):
        index = first + jnp.arange(num_envs)
        return core.act(agent.actor, params, act_key, step, timestep, state, index, workers)

    params_read, timestep_read = _reads(act, agent, params, row, num_envs)

    def program(read_params, step, read_timestep, state):
        timestep = timestep_read.fill(read_timestep)
        return *act(params_read.fill(read_params), step, timestep, state), step + 1

    return Acting(sequential(program), params_read, timestep_read)


def read_params(agent: Agent, params: Params, row: Row, num_envs: int) -> Reads:
    """Returns which parameters acting reads; for the arguments, see `compile_acting`."""
    act = lambda params, step, timestep, state: core.act(
        agent.actor, params, jnp.zeros(2, jnp.uint32), step, timestep, state
    )
    return _reads(act, agent, params, row, num_envs)[0]


def _reads(act: Any, agent: Agent, params: Params, row: Row, num_envs: int) -> tuple[Reads, Reads]:
    repeat = lambda x: jax.ShapeDtypeStruct((num_envs, *jnp.shape(x)), x.dtype)
    timestep = jax.tree.map(repeat, row.timestep)
    state = core.initial_actor_state(agent.actor, num_envs)
    shapes = jax.eval_shape(lambda: params), timestep
    (params_leaves, params_tree), (timestep_leaves, timestep_tree) = map(jax.tree.flatten, shapes)
    live = _live(jax.make_jaxpr(act)(*shapes[:1], jnp.uint32(0), timestep, state).jaxpr)
    params_live = live[: len(params_leaves)]
    timestep_live = live[len(params_leaves) + 1 :][: len(timestep_leaves)]
    return (
        Reads(params_live, params_leaves, params_tree),
        Reads(timestep_live, timestep_leaves, timestep_tree),
    )


def _live(jaxpr: Any) -> list[bool]:
    """Returns which inputs some output depends on."""
    needed = {id(x) for x in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(x) in needed for x in equation.outvars):
            needed.update(id(x) for x in equation.invars if not isinstance(x, Literal))
    return [id(x) in needed for x in jaxpr.invars]
