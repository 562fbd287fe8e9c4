"""The state before the first step, and the shapes of what will follow."""

from typing import Any

import dm_env
import jax
import jax.numpy as jnp

from rlws.actor import Actor
from rlws.agent import Agent
from rlws.environments.checks import check_actions
from rlws.learner import Learner, LearnerState
from rlws.numerics import streams
from rlws.numerics.streams import Stream
from rlws.trainers import core
from rlws.trainers.totals import Totals
from rlws.types import Array, EnvironmentSpec, Key, Params, Row, Trajectory


def init(agent: Agent, spec: EnvironmentSpec, seed: Array | int, num_envs: int) -> core.State:
    """Returns the state of an agent that has seen nothing."""
    learner, adder = begin(agent, spec, seed, num_envs)
    metrics = lambda *args: core.update(agent, *args)[2] | agent.adder.metrics(adder)
    shapes = jax.eval_shape(metrics, learner, adder, seed_key())
    totals = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    return core.State(learner, adder, Totals(totals, jnp.int32(0)), jnp.bool_(False))


def begin(
    agent: Agent, spec: EnvironmentSpec, seed: Array | int, num_envs: int
) -> tuple[LearnerState, Any]:
    """Returns the states of learner and adder at the start."""
    learner = agent.learner.init(init_key(seed))
    adder = agent.adder.init(example_row(agent, spec, learner.params), num_envs)
    if type(agent.learner).begin is Learner.begin:  # it does not look at batches
        return learner, adder
    batch = jax.eval_shape(lambda adder: agent.adder.sample(adder, seed_key())[1], adder)
    return begin_learner(agent.learner, learner, batch), adder


def begin_learner(learner: Learner, state: LearnerState, batch: Trajectory) -> LearnerState:
    """Returns the state of `init` for batches of the shapes of one that the adder gives."""
    seen = jax.eval_shape(lambda state, batch: learner.prepare(state, batch)[0], state, batch)
    return learner.begin(state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), seen))


def init_key(seed: Array | int) -> Key:
    """Returns the key of the first parameters.

    Of JAX's own kind: the same numbers from a loop, which is sooner compiled, and runs once.
    """
    words = jax.random.key_data(streams.draw(streams.key(seed, Stream.INIT)))
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def seed_key() -> Key:
    """Returns some key, where only its type matters."""
    return streams.draw(jnp.zeros(2, jnp.uint32))


def example_row(agent: Agent, spec: EnvironmentSpec, params: Params) -> Row:
    """Returns a row of one environment, all zeros; of `params` only the shapes matter.

    Raises:
      AgentFault: its action is of another shape or kind than the environment's.
    """
    zero = jnp.float32(0)
    timestep = dm_env.TimeStep(jnp.int32(0), zero, zero, spec.zero_observation())
    one = jax.tree.map(lambda x: x[None], timestep)
    state = initial_actor_state(agent.actor, 1)
    found = lambda params: core.act(
        agent.actor, params, jnp.zeros(2, jnp.uint32), jnp.int32(0), one, state
    )
    action, _, extras = jax.eval_shape(found, params)
    check_actions(spec.actions, action, axes=1)
    zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), tree)
    return Row(timestep, zeros(action), zeros(extras))


def initial_actor_state(actor: Actor, num_envs: int) -> Any:
    """Returns the actor states of `num_envs` environments, leaves [B, ...]."""
    repeat = lambda x: jnp.broadcast_to(x, (num_envs, *jnp.shape(x)))
    return jax.tree.map(repeat, actor.initial_state())
