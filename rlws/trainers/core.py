"""The cycle every trainer turns: act, add the rows, and learn whenever the adder has a batch.

Trainers differ in how they step environments and in nothing else. These functions, and `ready` of
the adder, are all they do to an agent. All are pure.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.actor import ENVIRONMENTS, WORKERS, Actor
from rlws.adders import Adder
from rlws.agent import Agent
from rlws.learner import LearnerState
from rlws.numerics import answers, streams
from rlws.settings import SettingError
from rlws.trainers.totals import Totals, finite
from rlws.trainers.tracebacks import stepped_through
from rlws.types import Action, Array, Key, Metrics, Params, Row, Trajectory


class State(NamedTuple):
    """The state of an agent in training."""

    learner: LearnerState
    adder: Any
    totals: Totals
    halted: Array  # whether an update came to NaN or infinity


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
        answer = actor.select_action(params, timestep, state, key)
        who = f"{type(actor).__name__}.select_action"
        action, after, extras = answers.several(who, ("action", "state", "extras"), answer)
        answers.same(f"{who}: the state", state, after)
        return action, after, extras

    index = jnp.arange(timestep.step_type.shape[0]) if index is None else index
    axes = 0, 0 if jnp.ndim(step) else None, 0, 0
    act_in_all = jax.vmap(act_in_one, axes, axis_name=ENVIRONMENTS)
    # Nothing varies along this axis: a sum over it takes other workers to be as far as this one.
    among = jax.vmap(act_in_all, None, None, axis_name=WORKERS, axis_size=workers)
    with stepped_through("the actor"):
        return among(index, step, timestep, state)


def add(adder: Adder, state: Any, rows: Row, length: Array | int, timestep: dm_env.TimeStep) -> Any:
    """Returns the state of an adder after a block of rows; arguments are those of `Adder.add`."""
    after = adder.add(state, rows, length, timestep)
    answers.same(f"{type(adder).__name__}.add: the state", state, after)
    return after


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
            after = agent.adder.feedback(adder, priority)
            answers.same(f"{type(agent.adder).__name__}.feedback: the state", adder, after)
            adder = after
        metrics = answers.metrics(f"{type(agent.learner).__name__}.update", metrics)
        who = f"{type(agent.adder).__name__}.metrics"
        metrics |= answers.metrics(who, agent.adder.metrics(adder))
        # Only noted: keeping the state from before would cost a small learner a tenth of its
        # speed. A run can be played again up to here.
        halted = state.halted | ~finite(metrics)
        return State(learner, adder, state.totals.add(metrics), halted), None

    return once(state)[0] if updates == 1 else jax.lax.scan(once, state, length=updates)[0]


def update_key(learn_key: Key, learner: LearnerState) -> Key:
    """Returns the key of the next update."""
    return streams.draw(learn_key, 0, learner.updates)


def update(
    agent: Agent, learner: LearnerState, adder: Any, key: Key
) -> tuple[LearnerState, Any, Metrics, Array | None]:
    """Returns the states after one update, its metrics, and the priorities for the adder."""
    sample_key, learn_key = jax.random.split(key)
    who = f"{type(agent.adder).__name__}.sample"
    sampled = agent.adder.sample(adder, sample_key)
    after, batch = answers.several(who, ("the state", "a Trajectory"), sampled)
    answers.same(f"{who}: the state", adder, after)
    if not isinstance(batch, Trajectory):
        raise SettingError(f"{who} must return the state and a Trajectory, got {batch!r}")
    with stepped_through("an update"):
        learner, metrics = agent.learner.learn(learner, batch, learn_key)
    priority = metrics.pop("priority", None)
    return learner, after, metrics, priority
