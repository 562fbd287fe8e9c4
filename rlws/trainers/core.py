"""The cycle every trainer turns: act, add the rows, and learn whenever the adder has a batch.

Trainers differ in how they step environments and in nothing else. These functions, and `add` and
`ready` of the adder, are all they do to an agent. All are pure.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.actor import ENVIRONMENTS, WORKERS, Actor
from rlws.agent import Agent
from rlws.environments.checks import check_actions
from rlws.learner import LearnerState
from rlws.numerics import streams
from rlws.numerics.streams import Stream
from rlws.trainers.tracebacks import stepped_through
from rlws.types import Action, Array, EnvironmentSpec, Key, Metrics, Params, Row


class Totals(NamedTuple):
    """The learner's metrics since they were last read."""

    metrics: Metrics  # sums over updates
    updates: Array


class State(NamedTuple):
    """The state of an agent in training."""

    learner: LearnerState
    adder: Any
    totals: Totals
    halted: Array  # whether an update came to NaN or infinity


def init(agent: Agent, spec: EnvironmentSpec, seed: Array | int, num_envs: int) -> State:
    """Returns the state of an agent that has seen nothing."""
    learner = agent.learner.init(streams.draw(streams.key(seed, Stream.INIT)))
    row = example_row(agent, spec, learner.params)
    adder = agent.adder.init(row, num_envs)
    metrics = lambda *args: update(agent, *args)[2] | agent.adder.metrics(adder)
    shapes = jax.eval_shape(metrics, learner, adder, seed_key())
    totals = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    return State(learner, adder, Totals(totals, jnp.int32(0)), jnp.bool_(False))


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
    found = lambda params: act(
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


def act(
    actor: Actor,
    params: Params,
    act_key: Key,
    step: Array,
    timestep: dm_env.TimeStep,
    state: Any,
    index: Array | None = None,
    workers: int = 1,
) -> tuple[Action, Any, Any]:
    """Acts in B environments (leaves [B, ...]); returns actions, actor states and extras.

    Args:
      actor: acts.
      params: of the agent.
      act_key: of the stream the actor draws from.
      step: the second counter of a draw, one for all or [B].
      timestep: of each environment.
      state: of the actor in each.
      index: the first counter of a draw, [B]; by default the number of the environment.
      workers: how many act like this one, each in environments of its own.
    """

    def act_in_one(index, step, timestep, state):
        key = streams.draw(act_key, index, step)
        return actor.select_action(params, timestep, state, key)

    index = jnp.arange(timestep.step_type.shape[0]) if index is None else index
    axes = 0, 0 if jnp.ndim(step) else None, 0, 0
    act_in_all = jax.vmap(act_in_one, axes, axis_name=ENVIRONMENTS)
    # Nothing varies along this axis: a sum over it takes other workers to be as far as this one.
    among = jax.vmap(act_in_all, None, None, axis_name=WORKERS, axis_size=workers)
    with stepped_through("the actor"):
        return among(index, step, timestep, state)


def learn(agent: Agent, state: State, learn_key: Key, updates: int = 1) -> State:
    """Takes a batch from the adder, which must be ready, and updates the learner with it.

    Args:
      agent: the agent.
      state: of the agent.
      learn_key: of the stream the learner draws from.
      updates: how often to do so, each time with a new batch.
    """

    def once(state, _=None):
        key = update_key(learn_key, state.learner)
        learner, adder, metrics, priority = update(agent, state.learner, state.adder, key)
        if priority is not None:
            adder = agent.adder.feedback(adder, priority)
        metrics = metrics | agent.adder.metrics(adder)
        sums = jax.tree.map(jnp.add, state.totals.metrics, metrics)
        totals = Totals(sums, state.totals.updates + 1)
        # Only noted: keeping the state from before would cost a small learner a tenth of its
        # speed. A run can be played again up to here.
        return State(learner, adder, totals, state.halted | ~_finite(metrics)), None

    return once(state)[0] if updates == 1 else jax.lax.scan(once, state, length=updates)[0]


def update_key(learn_key: Key, learner: LearnerState) -> Key:
    """Returns the key of the next update."""
    return streams.draw(learn_key, 0, learner.updates)


def update(
    agent: Agent, learner: LearnerState, adder: Any, key: Key
) -> tuple[LearnerState, Any, Metrics, Array | None]:
    """Returns the states after one update, its metrics, and the priorities for the adder."""
    sample_key, learn_key = jax.random.split(key)
    adder, batch = agent.adder.sample(adder, sample_key)
    with stepped_through("an update"):
        learner, metrics = agent.learner.learn(learner, batch, learn_key)
    priority = metrics.pop("priority", None)
    return learner, adder, metrics, priority


def decisive(metrics: Metrics) -> Metrics:
    """Returns those that must be finite: losses, and norms of gradients and steps.

    Other metrics may be infinite.
    """
    return {name: x for name, x in metrics.items() if name.endswith(("loss", "_norm"))}


def _finite(metrics: Metrics) -> Array:
    numbers = [*decisive(metrics).values()]
    return jnp.isfinite(jnp.stack(numbers)).all() if numbers else jnp.bool_(True)


def select(where: Array, new: Any, old: Any) -> Any:
    """Returns `new` or `old`, a scalar decides.

    What is the same on both sides, such as the memory of a replay, is not copied.
    """
    return jax.tree.map(lambda x, y: x if x is y else jnp.where(where, x, y), new, old)


def read_totals(state: State) -> tuple[State, dict[str, float]]:
    """Returns the state with its totals set to zero, and the means since the last call."""
    found = means(jax.device_get(state.totals))
    return state._replace(totals=jax.tree.map(jnp.zeros_like, state.totals)), found


def means(totals: Totals) -> dict[str, float]:
    """Returns the mean of each metric over the updates, none where there was no update."""
    metrics, updates = totals
    return {name: float(value) / int(updates) for name, value in metrics.items() if updates}
