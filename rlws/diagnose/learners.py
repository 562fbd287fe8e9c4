"""Checks of a learner: what must change nothing in an update, and what must."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.diagnose import beliefs
from rlws.diagnose.check import Check, Verdict, is_real, locate
from rlws.diagnose.targets import check_targets
from rlws.learner import LearnerState
from rlws.types import Trajectory

UPDATES = 45  # enough for any target network of a small agent to move


def check_learner(
    agent: Agent, state: LearnerState, batches: list[Trajectory], gamma: float | None = None
) -> Iterator[Check]:
    """Yields what the learner must make of batches that differ in what must not, or must, count."""
    learn = jax.jit(agent.learner.learn)
    component = locate(agent.learner, "loss")
    # The one with most ends of either kind.
    kinds = lambda b: min((b.last & (b.discount == d) & (b.weight > 0)).sum() for d in (0, 1))
    batch = jax.tree.map(jnp.asarray, max(batches, key=kinds))
    numbers = lambda batch, seed=0: _numbers(learn(state, batch, jax.random.key(seed))[1])
    whole = numbers(batch)

    def compare(name, isolates, other, same=True, advice=""):
        close = np.allclose(whole, other, rtol=1e-3, atol=1e-5)
        expected = "the same loss and gradient" if same else "another loss or gradient"
        got = "the same" if close else _difference(whole, other)
        verdict: Verdict = "pass" if close == same else "fail"
        return Check(f"learner: {name}", isolates, expected, got, verdict, component, advice)

    random = not np.allclose(whole, numbers(batch, 1), rtol=1e-4, atol=1e-6)
    count = len(batch.reward)
    if random:
        for name in ("order", "copies"):
            got = "the loss draws random numbers"
            yield Check(f"learner: {name}", "batches are sets", "", got, "skip")
    else:
        order = np.random.default_rng(0).permutation(count)
        yield compare(
            "order",
            "trajectories of a batch do not depend on each other's place",
            numbers(jax.tree.map(lambda x: x[order], batch)),
            advice="look for arrays of shape (B,) and (B, 1) that broadcast, or mixed axes",
        )
        yield compare(
            "copies",
            "losses are means, not sums, over the batch",
            numbers(jax.tree.map(lambda x: jnp.concatenate([x, x]), batch)),
            advice="divide by the number of steps that have weight",
        )
    yield compare(
        "padding",
        "what has weight 0 does not count, whatever it is",
        numbers(_padded(batch)),
        advice="multiply by trajectory.weight, and mean over the steps that have it",
    )
    ended, cut = batch.last & (batch.discount == 0), batch.last & (batch.discount > 0)
    real = batch.weight > 0
    has_values = _has_values(agent, state, batch)
    if (ended & real).any():
        yield compare(
            "termination",
            "nothing is worth anything after an end",
            numbers(_shifted(batch, ended & real)),
            advice="multiply the value of what follows by trajectory.discount",
        )
    if not has_values:
        yield Check("learner: truncation", "a time limit is no end", "", "no values", "skip")
    elif (cut & real).any():
        yield compare(
            "truncation",
            "a time limit is no end: what follows still counts",
            numbers(_shifted(batch, cut & real)),
            same=False,
            advice="truncation is treated as termination: bootstrap from the last observation, "
            "use trajectory.discount, not trajectory.last, and cut traces with trajectory.trace()",
        )
    yield from check_targets(agent, state, batch, gamma)
    yield from _check_updates(agent, state, batches, learn)


def _check_updates(agent, state, batches, learn):
    after = state
    for i in range(UPDATES):
        after, _ = learn(after, batches[i % len(batches)], jax.random.key(i))
    still = lambda name, old, new: [
        name + jax.tree_util.keystr(path)
        for (path, x), y in zip(
            jax.tree_util.tree_flatten_with_path(old)[0], jax.tree.leaves(new), strict=True
        )
        if jnp.size(x) > 1 and np.array_equal(x, y)
    ]
    finite = all(np.isfinite(x).all() for x in jax.tree.leaves(after) if is_real(x))
    yield Check(
        "learner: numbers",
        "updates stay finite",
        "finite",
        "finite" if finite else "NaN or infinity",
        "pass" if finite else "fail",
        locate(agent.learner, "loss"),
    )
    stuck = still("", state.params, after.params)
    yield Check(
        "learner: parameters",
        "every parameter is learned",
        "all move",
        f"{', '.join(stuck[:3])} never moved" if stuck else "all move",
        "fail" if stuck else "pass",
        locate(agent.learner, "loss"),
        "a gradient is missing: look for a stop_gradient too many, or an output nobody uses",
    )
    stuck = still("extra", state.extra, after.extra)
    if jax.tree.leaves(state.extra):
        yield Check(
            "learner: extra",
            "target networks and other state move",
            "all move",
            f"{', '.join(stuck[:3])} never moved" if stuck else "all move",
            "fail" if stuck else "pass",
            locate(agent.learner, "update"),
            "the target network is never updated",
        )


def _numbers(metrics):
    return np.array([metrics[name] for name in ("loss", "gradient_norm")])


def _difference(one, other):
    return f"loss {one[0]:.4g} and {other[0]:.4g}, gradient {one[1]:.4g} and {other[1]:.4g}"


def _padded(batch: Trajectory) -> Trajectory:
    """Returns the batch with two more trajectories without weight, of NaN where that can be."""

    def pad(x):
        bad = jnp.full_like(x[:2], jnp.nan) if is_real(x) else x[:2]
        return jnp.concatenate([x, bad])

    padded = jax.tree.map(pad, batch)
    nothing = jnp.zeros_like(batch.weight[:2])
    return padded._replace(weight=jnp.concatenate([batch.weight, nothing]))


def _shifted(batch: Trajectory, steps: jax.Array) -> Trajectory:
    """Returns the batch with other observations after some steps [B, T]."""
    never = jnp.zeros_like(steps[:, :1])
    after = jnp.concatenate([never, steps], axis=1)
    shift = lambda x: x + after.reshape(after.shape + (1,) * (x.ndim - 2)) * jnp.ones_like(x)
    return batch._replace(observation=jax.tree.map(shift, batch.observation))


def _has_values(agent, state, batch):
    one = jax.tree.map(lambda x: x[0], batch)
    return beliefs.values(agent, state, one.observation, one.first) is not None
