"""Checks of an actor: legal actions, drawn as the policy says, afresh in every episode."""

from collections.abc import Iterator
from functools import partial

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.actor import ENVIRONMENTS, WORKERS
from rlws.agent import Agent
from rlws.diagnose import beliefs
from rlws.diagnose.check import Check, is_real, locate
from rlws.learner import LearnerState
from rlws.trainers import core
from rlws.types import EnvironmentSpec, Trajectory


def check_actor(agent: Agent, spec: EnvironmentSpec, state: LearnerState) -> Iterator[Check]:
    """Yields whether actions are legal, drawn as the policy says, and afresh in each episode."""
    component = locate(agent.actor, "select_action")
    rng = np.random.default_rng(0)
    count, size = 4096, spec.observations.shape[0]
    observation = jnp.asarray(rng.normal(size=size), jnp.float32)
    act = partial(_act, state.params, observation)
    keys = jax.random.split(jax.random.key(0), count)
    action, *_ = act(agent.actor, agent.actor.initial_state(), keys)
    action = np.asarray(action)[:, 0]
    legal, limits = _legal(spec.actions, action)
    yield Check(
        "actor: legal",
        "actions are what the environment takes",
        limits,
        f"{list(action.shape[1:])} from {action.min():.3g} to {action.max():.3g}",
        "pass" if legal else "fail",
        component,
    )
    greedy = np.asarray(act(agent.evaluator, agent.evaluator.initial_state(), keys)[0])
    spread = int((greedy != greedy[:1]).any(axis=tuple(range(1, greedy.ndim))).sum())
    yield Check(
        "actor: evaluation",
        "evaluation is greedy",
        "one action",
        "one action" if not spread else f"other actions in {spread} of {count} draws",
        "note" if spread else "pass",
        locate(agent.evaluator, "select_action"),
    )
    outputs = _outputs(agent, state, observation)
    logits = getattr(getattr(outputs, "policy", None), "logits", None)
    if logits is None:
        yield Check(
            "actor: frequencies", "actions are drawn as the policy says", "", "no logits", "skip"
        )
    else:
        expected = np.asarray(jax.nn.softmax(logits))
        found = np.bincount(action, minlength=len(expected)) / count
        error = np.sqrt(expected * (1 - expected) / count)
        fine = (np.abs(found - expected) <= 5 * error + 1e-3).all()
        yield Check(
            "actor: frequencies",
            "actions are drawn as the policy says",
            np.array2string(expected, precision=3),
            np.array2string(found, precision=3),
            "pass" if fine else "fail",
            component,
        )
    stale = jax.tree.map(lambda x: x + 1.5 if is_real(x) else x, agent.actor.initial_state())
    leaves = [x for x in jax.tree.leaves(stale) if is_real(x)]
    if not leaves:
        yield Check("actor: reset", "an episode begins afresh", "", "no state", "skip")
        return
    one, other = (act(agent.actor, s, keys[:64]) for s in (agent.actor.initial_state(), stale))
    same = lambda x, y: not is_real(x) or np.allclose(x, y, atol=1e-5)
    fine = np.array_equal(one[0], other[0]) and jax.tree.all(jax.tree.map(same, one[1], other[1]))
    yield Check(
        "actor: reset",
        "what an episode leaves in the actor does not reach the next",
        "the same actions and state",
        "the same" if fine else "the state of the episode before still counts",
        "pass" if fine else "fail",
        component,
        "core state leaks across episodes: reset it where timestep.first()",
    )


def check_mask(agent: Agent, spec: EnvironmentSpec) -> Check:
    """Returns whether what a mask forbids is never chosen, by actor or evaluator.

    `spec` is that of observations {"action_mask": [2], "state": [n]}.
    """
    state = jax.jit(lambda: agent.learner.init(core.seed_key()))()
    size = spec.observations["state"].shape
    keys, wrong = jax.random.split(jax.random.key(0), 512), 0
    for legal in range(2):
        seen = {"action_mask": jnp.arange(2) == legal, "state": jnp.ones(size)}
        for actor in (agent.actor, agent.evaluator):
            chosen = _act(state.params, seen, actor, actor.initial_state(), keys)[0]
            wrong += int((np.asarray(chosen) != legal).sum())
    return Check(
        "actor: mask",
        "what the action mask forbids is never chosen",
        "0 forbidden",
        f"{wrong} forbidden of {4 * len(keys):,}",
        "fail" if wrong else "pass",
        locate(agent.actor, "select_action"),
        "what explores must look at observation['action_mask'], too: networks.random_action does",
    )


def check_log_prob(agent: Agent, state: LearnerState, batches: list[Trajectory]) -> Iterator[Check]:
    """Yields whether the learner finds the log-probabilities that the actor recorded.

    `batches` hold what was acted by the parameters of `state`, which has learned a little, so that
    statistics and recurrent states are none of the initial ones.
    """
    name, network = "actor: log_prob", agent.learner.network
    isolates = "log-probabilities of actor and learner agree before the first gradient"
    if "log_prob" not in batches[0].extras:
        yield Check(name, isolates, "", "none recorded", "skip")
        return

    def miss(trajectory):
        outputs = network.unroll(state.params, trajectory)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        apart = jnp.abs(policy.log_prob(trajectory.action) - trajectory.extras["log_prob"])
        return jnp.where(trajectory.weight > 0, apart, 0.0).max()

    worst_of = jax.jit(lambda batch: jax.vmap(miss)(agent.learner.prepare(state, batch)[0]).max())
    worst = max(float(worst_of(batch)) for batch in batches)
    yield Check(
        name,
        isolates,
        "the same",
        "the same" if worst < 1e-3 else f"up to {worst:.3g} apart",
        "pass" if worst < 1e-3 else "fail",
        locate(agent.actor, "select_action"),
        "the actor must see what the learner sees: observations, core states and parameters",
    )


def _act(params, observation, actor, carried, keys):
    """Returns what an actor says of a FIRST observation, with each key; leaves [n, 1, ...]."""
    timestep = dm_env.TimeStep(jnp.int32(0), jnp.float32(0), jnp.float32(1), observation)
    one = lambda key, _: actor.select_action(params, timestep, carried, key)
    named = lambda key: jax.vmap(partial(one, key), axis_name=ENVIRONMENTS)(jnp.zeros(1))
    alone = jax.vmap(named, None, None, axis_name=WORKERS, axis_size=1)
    return jax.jit(jax.vmap(alone))(keys)


def _outputs(agent, state, observation):
    learner, observations = agent.learner, observation[None]
    observations = beliefs.observed(learner, state, observations)
    trajectory = beliefs.sequence(learner.network, observations, jnp.array([True]))
    params = state.params
    try:
        outputs = learner.network.unroll(params, trajectory)
    except Exception:  # parameters of several networks: nobody says which are this one's
        return None
    return jax.tree.map(lambda x: x[0], outputs)


def _legal(spec, action):
    if isinstance(spec, specs.DiscreteArray):
        fine = np.issubdtype(action.dtype, np.integer) and action.ndim == 1
        return fine and (
            (action >= 0) & (action < spec.num_values)
        ).all(), f"0 to {spec.num_values - 1}"
    fine = action.shape[1:] == spec.shape and np.isfinite(action).all()
    return bool(fine), f"{list(spec.shape)}, finite"
