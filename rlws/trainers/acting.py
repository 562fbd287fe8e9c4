"""Acting from the host: one dispatch a step, which takes only the arrays the actor reads.

Handing an array to a compiled program costs about as much as a small layer computes. An actor sees
all parameters and the whole timestep, and usually reads the policy's and the observation.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from rlws.agent import Agent
from rlws.trainers import cycle
from rlws.types import Array, Key, Params, Row


class Acting(NamedTuple):
    """The compiled program, and what it reads."""

    program: Any  # (read parameters, step, read timestep, actor state) -> actions, state, extras
    params: list[bool]  # which leaves of the parameters are read
    timestep: list[bool]  # which leaves of the timestep are read

    def read(self, params: Params) -> list[Array]:
        """Returns the parameters that the program takes."""
        return [
            leaf for leaf, live in zip(jax.tree.leaves(params), self.params, strict=True) if live
        ]


def compile_acting(agent: Agent, params: Params, row: Row, num_envs: int, act_key: Key) -> Acting:
    """Returns the program that acts in `num_envs` environments.

    Args:
      agent: its `actor` acts.
      params: of the agent; only their shapes matter, as those of `row`, a row of one environment.
      num_envs: B.
      act_key: of the stream the actor draws from.
    """
    repeat = lambda x: jnp.zeros((num_envs, *jnp.shape(x)), x.dtype)
    timestep = jax.tree.map(repeat, row.timestep)
    state = cycle.initial_actor_state(agent.actor, num_envs)
    shapes = jax.eval_shape(lambda: (params, timestep))
    (params_leaves, params_tree), (timestep_leaves, timestep_tree) = map(jax.tree.flatten, shapes)

    def act(params, step, timestep, state):
        return cycle.act(agent.actor, params, act_key, step, timestep, state)

    live = _live(jax.make_jaxpr(act)(params, jnp.uint32(0), timestep, state).jaxpr)
    params_live = live[: len(params_leaves)]
    timestep_live = live[len(params_leaves) + 1 :][: len(timestep_leaves)]

    def program(read_params, step, read_timestep, state):
        params = params_tree.unflatten(_fill(params_leaves, params_live, read_params))
        timestep = timestep_tree.unflatten(_fill(timestep_leaves, timestep_live, read_timestep))
        return *act(params, step, timestep, state), step + 1

    return Acting(jax.jit(program), params_live, timestep_live)


def _fill(shapes: list[Any], live: list[bool], read: list[Array]) -> list[Array]:
    """Returns all leaves: those that were read, and zeros no one looks at."""
    remaining = iter(read)
    return [
        next(remaining) if here else jnp.zeros(x.shape, x.dtype)
        for x, here in zip(shapes, live, strict=True)
    ]


def _live(jaxpr: Any) -> list[bool]:
    """Returns which inputs some output depends on."""
    needed = {id(x) for x in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(x) in needed for x in equation.outvars):
            needed.update(id(x) for x in equation.invars if not isinstance(x, Literal))
    return [id(x) in needed for x in jaxpr.invars]
