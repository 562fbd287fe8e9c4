"""Checks of an actor: legal actions, drawn as the policy says, afresh in every episode."""

import re
from collections.abc import Iterator
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.actor import ENVIRONMENTS, WORKERS, Actor
from rlws.agent import Agent
from rlws.diagnose import compilation, value_estimates
from rlws.diagnose.check import Check, Question, is_real, locate
from rlws.diagnose.subject import Subject
from rlws.trainers import initial
from rlws.types import EnvironmentSpec

LEGAL = Question("actor: legal", "actions are what the environment takes")
EVALUATION = Question("actor: evaluation", "evaluation is greedy", "one action")
FREQUENCIES = Question("actor: frequencies", "actions are drawn as the policy says")
LIKELIHOODS = Question(
    "actor: likelihoods",
    "what is recorded as log_prob is how likely an action was drawn",
    "the shares of draws",
    "record the log-probability of the action that is returned, by what it was drawn from",
)
EXPLORATION = Question(
    "actor: exploration",
    "what is explored gets less with the steps that an actor counts, or stays",
    "the best action as often as at first, or more often",
    "the schedule goes the wrong way: linear(start, end, steps, now), from much to little",
)
LATER = 1_000_000  # steps
RESET = Question(
    "actor: reset",
    "what an episode leaves in the actor does not reach the next",
    "the same actions and state",
    "core state leaks across episodes: reset it where timestep.first()",
)
MASK = Question(
    "actor: mask",
    "what the action mask forbids is never chosen",
    "0 forbidden",
    "what explores must look at observation['action_mask'], too: networks.random_action does",
)
LOG_PROB = Question(
    "actor: log_prob",
    "log-probabilities of actor and learner agree before the first gradient",
    "the same",
    "the actor must see what the learner sees: observations, core states and parameters",
)
PROBABILITIES = re.compile("mu|pi|prob.*|.*_prob", re.IGNORECASE)
LOG_PROBS = re.compile("log_?(p|mu|likelihood)", re.IGNORECASE)  # names of what is recorded
DRAWS = 4096
LEARNED = 5  # updates before log-probabilities are compared


def check_actor(subject: Subject) -> Iterator[Check]:
    """Yields whether actions are legal, drawn as the policy says, and afresh in each episode."""
    agent, params = subject.agent, subject.state.learner.params
    component = locate(agent.actor, "select_action")
    size = subject.spec.observations.shape[0]
    observation = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)
    keys = jax.random.split(jax.random.key(0), DRAWS)
    act, initial = _acting(agent.actor), agent.actor.initial_state()
    drawn, after, _ = act(params, observation, initial, keys)
    action = drawn[:, 0]
    legal, limits = _legal(subject.spec.actions, action)
    found = f"{list(action.shape[1:])} from {action.min():.3g} to {action.max():.3g}"
    yield LEGAL.answer(legal, found, component, limits)
    evaluator = agent.evaluator
    greedy = _acting(evaluator)(params, observation, evaluator.initial_state(), keys)[0]
    spread = int((greedy != greedy[:1]).any(axis=tuple(range(1, greedy.ndim))).sum())
    where = locate(evaluator, "select_action")
    yield EVALUATION.holds(not spread, f"other actions in {spread} of {DRAWS} draws", where, "note")
    yield _check_frequencies(subject, observation, action, component)
    later = _aged(initial, after)
    states = [initial, later] if later else [initial]
    yield from _check_likelihoods(act, params, observation, states, keys, component)
    if later:
        best = lambda drawn: float(np.mean(drawn[:, 0] == greedy[0, 0]))
        shares = best(drawn), best(act(params, observation, later, keys)[0])
        got = f"{shares[0]:.0%} at first, {shares[1]:.0%} later"
        yield EXPLORATION.answer(shares[1] > shares[0] - 0.1, got, component)
    stale = jax.tree.map(lambda x: x + 1.5 if is_real(x) else x, initial)
    if not any(map(is_real, jax.tree.leaves(stale))):
        yield RESET.skip("no state")
        return
    # The evidence of a state that is carried on is in what the actor does, and in what it carries.
    other = act(params, observation, stale, keys)
    same = lambda x, y: not is_real(x) or np.allclose(x, y, atol=1e-5)
    fine = np.array_equal(drawn, other[0]) and jax.tree.all(jax.tree.map(same, after, other[1]))
    got = "the same" if fine else "the state of the episode before still counts"
    yield RESET.answer(fine, got, component)


def _aged(initial: Any, after: Any) -> Any:
    """Returns an actor's state with what counts steps far on; () where nothing does."""
    counts = jax.tree.map(
        lambda x, y: np.issubdtype(np.asarray(x).dtype, np.integer) and (y - x == 1).all(),
        initial,
        after,
    )
    aged = jax.tree.map(lambda x, counts: x + LATER * counts, initial, counts)
    return aged if any(jax.tree.leaves(counts)) else ()


def remembers(agent: Agent, spec: EnvironmentSpec) -> bool:
    """Returns whether an actor, or its network, carries something of what it has seen."""
    if agent.learner.network.recurrent:
        return True
    params = compilation.jit(lambda: agent.learner.init(initial.seed_key()).params)()
    act, start = _acting(agent.actor), agent.actor.initial_state()
    zeros, keys = spec.zero_observation(), jax.random.split(jax.random.key(0), 1)
    seen = (zeros, jax.tree.map(lambda x: x + jnp.ones_like(x), zeros))
    states = [jax.tree.leaves(act(params, x, start, keys)[1]) for x in seen]
    return any(not np.array_equal(x, y) for x, y in zip(*states, strict=True))


def check_mask(agent: Agent, spec: EnvironmentSpec) -> Check:
    """Returns whether what a mask forbids is never chosen, by actor or evaluator.

    A note where it is: who plays where all is allowed need not know of masks.

    `spec` is that of observations {"action_mask": [2], "state": [n]}.
    """
    params = compilation.jit(lambda: agent.learner.init(initial.seed_key()).params)()
    state = np.ones(spec.observations["state"].shape, np.float32)
    keys, wrong = jax.random.split(jax.random.key(0), 512), 0
    for actor in (agent.actor, agent.evaluator):
        act = _acting(actor)
        for legal in range(2):
            seen = {"action_mask": np.arange(2) == legal, "state": state}
            wrong += int((act(params, seen, actor.initial_state(), keys)[0] != legal).sum())
    got = f"{wrong} forbidden of {4 * len(keys):,}"
    return MASK.answer(not wrong, got, locate(agent.actor, "select_action"), wrong="note")


def check_log_prob(subject: Subject) -> Iterator[Check]:
    """Yields whether the learner finds the log-probabilities that the actor recorded.

    The parameters have learned a little, so that statistics and recurrent states are none of the
    initial ones.
    """
    if "log_prob" not in subject.batches[0].extras:
        yield LOG_PROB.skip("none recorded")
        return
    learner, state = subject.agent.learner, subject.state.learner
    for i, batch in enumerate(subject.batches[:LEARNED]):
        state, _ = subject.learn(state, batch, jax.random.key(i))

    def miss(trajectory):
        outputs = learner.network.unroll(state.params, trajectory)
        policy = jax.tree.map(lambda x: x[:-1], outputs.policy)
        apart = jnp.abs(policy.log_prob(trajectory.action) - trajectory.extras["log_prob"])
        return jnp.where(trajectory.weight > 0, apart, 0.0).max()

    worst_of = compilation.jit(lambda batch: jax.vmap(miss)(learner.prepare(state, batch)[0]).max())
    try:
        worst = max(float(worst_of(batch)) for batch in subject.play(state.params)[1])
    except Exception:  # parameters of several networks: nobody says which are this one's
        yield LOG_PROB.skip("its network takes other parameters than the learner's")
        return
    where = locate(subject.agent.actor, "select_action")
    yield LOG_PROB.holds(worst < 1e-3, f"up to {worst:.3g} apart", where)


def _check_frequencies(subject, observation, action, component):
    outputs = _outputs(subject, observation)
    logits = getattr(getattr(outputs, "policy", None), "logits", None)
    if logits is None:
        return FREQUENCIES.skip("no logits")
    expected = np.asarray(jax.nn.softmax(logits))
    found = np.bincount(action, minlength=len(expected)) / DRAWS
    error = np.sqrt(expected * (1 - expected) / DRAWS)
    fine = (np.abs(found - expected) <= 5 * error + 1e-3).all()
    show = lambda x: np.array2string(x, precision=3)
    return FREQUENCIES.answer(fine, show(found), component, show(expected))


def _check_likelihoods(act, params, observation, states, keys, component):
    """Yields whether recorded probabilities of discrete actions, or logs, are those of many draws.

    By parameters that make some actions likelier than others, at first and after many steps.
    """
    rng = np.random.default_rng(0)
    louder = lambda x: x + np.float32(0.5) * np.abs(rng.normal(size=x.shape)).astype(x.dtype)
    loud = jax.tree.map(lambda x: louder(x) if is_real(x) else x, params)
    worst = dict[str, float]()
    for state in states:
        drawn, _, extras = act(loud, observation, state, keys)
        action = drawn[:, 0]
        for name, told in extras.items() if isinstance(extras, dict) else ():
            log, chance = LOG_PROBS.search(name), PROBABILITIES.fullmatch(name)
            if not (log or chance) or jnp.shape(told) != drawn.shape or is_real(drawn):
                continue
            share = np.bincount(action, minlength=action.max() + 1) / DRAWS
            apart = np.abs((np.exp(told) if log else told)[:, 0] - share[action]).max()
            worst[name] = max(worst.get(name, 0.0), float(apart))
    for name, apart in worst.items():
        got = f"{name} is up to {apart:.3g} apart"
        yield LIKELIHOODS.holds(apart < 5 * np.sqrt(0.25 / DRAWS), got, component)


def _acting(actor: Actor) -> Any:
    """Returns what an actor says of a FIRST observation, with each key; leaves [n, 1, ...]."""

    def one(params, observation, carried, key):
        timestep = dm_env.TimeStep(jnp.int32(0), jnp.float32(0), jnp.float32(1), observation)
        act = lambda _: actor.select_action(params, timestep, carried, key)
        alone = lambda _: jax.vmap(act, axis_name=ENVIRONMENTS)(jnp.zeros(1))
        return jax.vmap(alone, None, None, axis_name=WORKERS, axis_size=1)(())

    compiled = compilation.jit(jax.vmap(one, (None, None, None, 0)))
    return lambda *inputs: jax.device_get(compiled(*inputs))


def _outputs(subject, observation):
    learner, state = subject.agent.learner, subject.state.learner

    def outputs():
        trajectory = value_estimates.seen(
            subject.agent, state, observation[None], jnp.array([True])
        )
        return jax.tree.map(lambda x: x[0], learner.network.unroll(state.params, trajectory))

    try:
        return compilation.jit(outputs)()
    except Exception:  # parameters of several networks: nobody says which are this one's
        return None


def _legal(spec, action):
    if isinstance(spec, specs.DiscreteArray):
        fine = np.issubdtype(action.dtype, np.integer) and action.ndim == 1
        return fine and (
            (action >= 0) & (action < spec.num_values)
        ).all(), f"0 to {spec.num_values - 1}"
    fine = action.shape[1:] == spec.shape and np.isfinite(action).all()
    return bool(fine), f"{list(spec.shape)}, finite"
