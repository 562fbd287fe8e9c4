"""What an agent estimates: the value of an observation, in the rewards of the environment."""

from typing import Any

import dm_env
import jax
import jax.numpy as jnp

from rlws.agent import Agent
from rlws.diagnose import compilation
from rlws.learner import LearnerState
from rlws.normalise import ObservationStatistics, RewardScale
from rlws.trainers import core, initial
from rlws.types import Array, EnvironmentSpec, Observation, Params, Trajectory


def values(
    agent: Agent, state: LearnerState, observations: Observation, first: Array
) -> Array | None:
    """Returns the value of each of T observations in a row, [T], or None where there is none.

    It is what `Learner.value` says, in the units of the rewards, whatever the terms of the learner
    make of observations and rewards.
    """
    learner, unit = agent.learner, jnp.float32(1)
    for term, own in zip(learner.terms, state.terms, strict=True):
        if isinstance(term, RewardScale):
            unit = own.deviation()
    found = learner.value(state.params, seen(agent, state, observations, first))
    return None if found is None else unit * found


def halves(
    agent: Agent, state: LearnerState, observations: Observation, first: Array
) -> Array | None:
    """Returns the mean of the lower and the upper half of what may be returned, [T, 2].

    None: the network says no quantiles, which are outputs of the shape of `q`, or `value`, with an
    axis more, over which these are the means. Arguments as for `values`.
    """
    learner = agent.learner
    trajectory = seen(agent, state, observations, first)
    try:
        outputs = learner.network.unroll(state.params, trajectory)._asdict()
    except Exception:  # parameters of several networks: nobody says which are this one's
        return None
    mean, leaves = outputs.get("q", outputs.get("value")), jax.tree.leaves(outputs)
    many = [x for x in leaves if (x.ndim == 3 if mean is None else x.shape[:-1] == mean.shape)]
    if not many or many[0].shape[-1] < 2:
        return None
    means = many[0].mean(axis=-1)
    if mean is not None:
        same = jnp.allclose(means, mean, atol=1e-4)
    elif (value := learner.value(state.params, trajectory)) is None:
        return None
    else:  # of each action, and the value is that of the best
        mean, same = means, jnp.allclose(means.max(axis=-1), value, atol=1e-4)
    quantiles = jnp.sort(many[0], axis=-1)
    if mean.ndim > 1:
        best = jnp.argmax(mean, axis=-1)[:, None, None]
        quantiles = jnp.take_along_axis(quantiles, best, axis=1)[:, 0]
    half = quantiles.shape[-1] // 2
    found = jnp.stack([quantiles[:, :half].mean(-1), quantiles[:, -half:].mean(-1)], axis=-1)
    # Of other outputs of that shape, such as logits of a distribution, nothing can be said.
    return jnp.where(same, found, jnp.nan)


def has_quantiles(agent: Agent, spec: EnvironmentSpec) -> bool:
    """Returns whether an agent says more of returns than their mean, as `halves` reads it."""

    def ask():
        state = agent.learner.init(jax.random.key(0))
        observations = jax.tree.map(lambda x: jnp.stack([x + 1, x]), spec.zero_observation())
        return halves(agent, state, observations, jnp.array([True, False]))

    if jax.eval_shape(ask) is None:
        return False
    return bool(jnp.isfinite(compilation.jit(ask)()).all())


def has_values(agent: Agent, spec: EnvironmentSpec) -> bool:
    """Returns whether an agent has an idea of what observations are worth."""

    def ask():
        state = agent.learner.init(jax.random.key(0))
        zeros = jax.tree.map(lambda x: jnp.stack([x, x, x]), spec.zero_observation())
        return values(agent, state, zeros, jnp.array([True, False, False]))

    found = jax.eval_shape(ask)
    return found is not None and found.shape == (3,)  # or it is no value of each observation


def seen(agent: Agent, state: LearnerState, observations: Observation, first: Array) -> Trajectory:
    """Returns observations [T, ...] as the network sees them, in a trajectory of T - 1 steps.

    What an actor records is 0 in all steps, or as it is where an episode begins.
    """
    for term in agent.learner.terms:
        if isinstance(term, ObservationStatistics):
            observations = term.normalise(state.params[term.name], observations)
    extras = _recorded(agent, state.params, jax.tree.map(lambda x: x[0], observations))
    begun = agent.learner.network.initial_state() or agent.actor.initial_state()
    if isinstance(extras, dict) and _alike(extras.get("core"), begun):
        extras = {**extras, "core": begun}
    return sequence(extras, observations, first)


def sequence(extras: Any, observations: Observation, first: Array) -> Trajectory:
    """Returns observations as a trajectory of T - 1 steps, each with these extras."""
    zeros = jnp.zeros(len(first) - 1)
    repeat = lambda x: jnp.broadcast_to(x, (len(first), *jnp.shape(x)))
    extras = jax.tree.map(repeat, extras)
    return Trajectory(observations, zeros, zeros, zeros, zeros, first, zeros > 0, extras)


def _recorded(agent: Agent, params: Params, observation: Observation) -> Any:
    """Returns zeros of the shapes of what the actor records of a step."""
    zero = jnp.float32(0)
    one = dm_env.TimeStep(jnp.int32(0), zero, zero, observation)
    one, state = (
        jax.tree.map(lambda x: jnp.asarray(x)[None], one),
        initial.initial_actor_state(agent.actor, 1),
    )
    act = lambda: core.act(agent.actor, params, jnp.zeros(2, jnp.uint32), jnp.int32(0), one, state)
    return jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), jax.eval_shape(act)[2])


def _alike(one: Any, other: Any) -> bool:
    looks = lambda x: (jax.tree.structure(x), *map(jnp.shape, jax.tree.leaves(x)))
    return looks(one) == looks(other)
