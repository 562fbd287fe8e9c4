"""What an agent believes: the value of an observation, in the rewards of the environment."""

import jax
import jax.numpy as jnp

from rlws.agent import Agent
from rlws.learner import Learner, LearnerState
from rlws.networks import Network
from rlws.normalise import ObservationStatistics, RewardScale
from rlws.types import Array, Observation, Trajectory


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
    observations = observed(learner, state, observations)
    found = learner.value(state.params, sequence(learner.network, observations, first))
    return None if found is None else unit * found


def observed(learner: Learner, state: LearnerState, observations: Observation) -> Observation:
    """Returns observations [T, ...] as the network sees them."""
    for term in learner.terms:
        if isinstance(term, ObservationStatistics):
            observations = term.normalise(state.params[term.name], observations)
    return observations


def sequence(network: Network, observations: Observation, first: Array) -> Trajectory:
    """Returns observations as a trajectory of T - 1 steps, for `Network.unroll` to look at."""
    zeros = jnp.zeros(len(first) - 1)
    repeat = lambda x: jnp.broadcast_to(x, (len(first), *jnp.shape(x)))
    core = jax.tree.map(repeat, network.initial_state())
    return Trajectory(observations, zeros, zeros, zeros, zeros, first, zeros > 0, {"core": core})
