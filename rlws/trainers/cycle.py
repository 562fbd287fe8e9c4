"""The cycle every trainer turns: act, add the rows, and learn whenever the adder has a batch.

Trainers differ in how they step environments and in nothing else. These functions, and `add` and
`ready` of the adder, are all they do to an agent. All are pure.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws import streams
from rlws.actor import Actor
from rlws.agent import Agent
from rlws.learner import LearnerState
from rlws.streams import Stream
from rlws.types import Action, Array, EnvironmentSpec, Key, Metrics, Params, Row


class State(NamedTuple):
    """The state of an agent in training."""

    learner: LearnerState
    adder: Any
    totals: Metrics  # sums of the learner's metrics over the updates since they were last read


def init(agent: Agent, spec: EnvironmentSpec, seed: int, num_envs: int) -> State:
    """Returns the state of an agent that has seen nothing."""
    learner = agent.learner.init(streams.draw(streams.key(seed, Stream.INIT)))
    row = example_row(agent, spec, learner.params)
    adder = agent.adder.init(row, num_envs)

    def first_update(learner, adder):
        key = jax.random.key(0)
        adder, batch = agent.adder.sample(adder, key)
        return agent.learner.update(learner, batch, key)[1] | agent.adder.metrics(adder)

    shapes = jax.eval_shape(first_update, learner, adder)
    totals = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    return State(learner, adder, totals | {"updates": jnp.float32(0)})


def example_row(agent: Agent, spec: EnvironmentSpec, params: Params) -> Row:
    """Returns a row of one environment, all zeros."""
    observation = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), spec.observations)
    timestep = dm_env.TimeStep(jnp.int32(0), jnp.float32(0), jnp.float32(0), observation)
    key, state = jax.random.key(0), agent.actor.initial_state()
    action, _, extras = jax.eval_shape(agent.actor.select_action, params, timestep, state, key)
    zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
    return Row(timestep, zeros(action), zeros(extras))


def initial_actor_state(actor: Actor, num_envs: int) -> Any:
    """Returns the actor states of `num_envs` environments, leaves [B, ...]."""
    repeat = lambda x: jnp.broadcast_to(x, (num_envs, *jnp.shape(x)))
    return jax.tree.map(repeat, actor.initial_state())


def act(
    actor: Actor, params: Params, act_key: Key, step: Array, timestep: dm_env.TimeStep, state: Any
) -> tuple[Action, Any, Any]:
    """Acts in B environments (leaves [B, ...]); returns actions, actor states and extras."""

    def act_in_one(index, timestep, state):
        key = streams.draw(act_key, index, step)
        return actor.select_action(params, timestep, state, key)

    return jax.vmap(act_in_one)(jnp.arange(timestep.step_type.shape[0]), timestep, state)


def learn(agent: Agent, state: State, learn_key: Key) -> State:
    """Takes a batch from the adder, which must be ready, and updates the learner with it."""
    key = streams.draw(learn_key, 0, state.learner.updates)
    sample_key, update_key = jax.random.split(key)
    adder, batch = agent.adder.sample(state.adder, sample_key)
    learner, metrics = agent.learner.update(state.learner, batch, update_key)
    metrics |= agent.adder.metrics(adder) | {"updates": jnp.float32(1)}
    return State(learner, adder, jax.tree.map(jnp.add, state.totals, metrics))


def read_totals(state: State) -> tuple[State, dict[str, float]]:
    """Returns the state with its totals set to zero, and the means since the last call."""
    totals = {name: float(value) for name, value in jax.device_get(state.totals).items()}
    updates = totals.pop("updates")
    means = {name: value / updates for name, value in totals.items()} if updates else {}
    return state._replace(totals=jax.tree.map(jnp.zeros_like, state.totals)), means
