"""Checks of an adder: whether trajectories are what happened."""

from collections.abc import Iterator

import jax
import numpy as np
from dm_env import StepType

from rlws.diagnose.check import Check, Question, locate
from rlws.diagnose.subject import EXPERIENCE, NUM_ENVS, ROWS, Subject

BATCHES = Question(
    "adder",
    "batches come",
    "a batch",
    "it is asked at toy size, by names of settings: call those of the adder min_size, capacity, "
    "period, unroll_length or episodes_per_update, or give smaller ones with --set NAME=VALUE",
)


def check_adder(subject: Subject) -> Iterator[Check]:
    """Yields what is wrong with the batches that an adder makes of known experience."""
    component = locate(subject.agent.adder, "sample")
    if not subject.batches:
        yield BATCHES.answer(False, f"no batch from {ROWS} rows", component)
        return
    count, wrong = _wrong(subject)
    many = getattr(subject.agent.adder, "n_step", 1)
    expectations = {
        "episodes": "no step crosses an episode's end",
        "order": f"steps follow each other{'' if many == 1 else f', {many} at a time'}",
        "rewards": "each step has the rewards that came of it",
        "discounts": "discounts are 0 at termination only",
        "ends": "first and last are where episodes begin and end",
        "actions": "each step has the action that was taken",
        "last steps": "the last step of an episode is experience",
    }
    for what, isolates in expectations.items():
        question = Question(f"adder: {what}", isolates, "every step", isolates)
        got = wrong.get(what, f"{count:,} steps")
        yield question.answer(what not in wrong, got, component)


def _wrong(subject):
    """Returns how many steps there are, and the first fault of each kind, in words."""
    timestep, episodes, ts, terminated = EXPERIENCE
    adder, (taken_rows, batches) = subject.agent.adder, subject.played
    gamma, most = getattr(adder, "discount", 1.0), getattr(adder, "n_step", 1)
    rows = {
        (env, int(episodes[row, env]), int(ts[row, env])): row
        for row in range(ROWS + 1)
        for env in range(NUM_ENVS)
    }
    is_last = timestep.step_type == StepType.LAST
    batch = jax.tree.map(lambda *x: np.concatenate(x), *batches)
    real = batch.weight > 0
    told = np.rint(np.float64(batch.observation[..., :3]) * 8).astype(int)
    here, there = told[:, :-1][real], told[:, 1:][real]
    last, first = batch.last[real], batch.first[:, :-1][real]
    env, episode, t = here.T
    wrong = {}

    def note(what, steps, text):
        """Notes the first of some steps, if there are any."""
        if steps.any():
            wrong[what] = text(steps.argmax())

    where = lambda i: f"environment {env[i]}, episode {episode[i]}, step {t[i]}"
    crosses = (here[:, :2] != there[:, :2]).any(axis=1)
    note(
        "episodes",
        crosses,
        lambda i: f"a step from episode {episode[i]} into episode {there[i, 1]}",
    )
    find = lambda told: np.array([rows.get(tuple(x), -1) for x in told.tolist()])
    row, onward, taken = find(here), find(there), there[:, 2] - t
    column = np.clip(env, 0, NUM_ENVS - 1)
    ended = ~crosses & (onward >= 0) & is_last[onward, column]
    jumps = ~((row >= 0) & (row < ROWS) & (taken >= 1) & (taken <= most)) | is_last[row, column]
    short = ~jumps & (taken < most) & ~ended
    but = lambda i: "" if jumps[i] else f", not {t[i] + most}"
    astray = ~crosses & (jumps | short)
    note("order", astray, lambda i: f"{where(i)} followed by step {there[i, 2]}{but(i)}")
    fine = ~crosses & ~jumps  # of the others nothing can be said
    sum_of = np.zeros(len(row))
    for j in range(most):
        later = np.minimum(row + 1 + j, ROWS)
        sum_of += np.where(j < taken, gamma**j * timestep.reward[later, column], 0.0)
    reward, discount = batch.reward[real], batch.discount[real]
    off = fine & ~np.isclose(reward, sum_of, atol=1e-4)
    note("rewards", off, lambda i: f"{where(i)}: {reward[i]:.3f}, not {sum_of[i]:.3f}")
    end = terminated[onward, column]
    factor = np.where(end, 0.0, gamma ** np.clip(taken - 1.0, 0, most))
    kind = lambda i: "terminated" if end[i] else "went on, or was truncated"
    off = fine & ~np.isclose(discount, factor, atol=1e-5)
    said = lambda i: f"{discount[i]:.3f}, not {factor[i]:.3f}"
    note("discounts", off, lambda i: f"{where(i)}, which {kind(i)}: {said(i)}")
    off_last = last != ended
    flag = lambda i: f"last is {bool(last[i])}" if off_last[i] else f"first is {bool(first[i])}"
    off = fine & (off_last | (first != (t == 0)))
    note("ends", off, lambda i: f"{where(i)}: {flag(i)}")
    other = np.zeros(len(row), bool)
    inside = np.minimum(row, ROWS - 1)
    for ours, theirs in zip(
        jax.tree.leaves(batch.action), jax.tree.leaves(taken_rows.action), strict=True
    ):
        unlike = ours[real] != theirs[inside, column]
        other |= unlike.reshape(len(row), -1).any(axis=1)
    note("actions", fine & other, lambda i: f"{where(i)}: another action than the one taken")
    share = is_last[:ROWS].mean() / (~is_last[:ROWS]).mean()
    finals, count = int((fine & ended).sum()), len(row)
    if finals < 0.3 * share * count:
        text = f"{finals} of {count} steps end an episode; in the stream, {share:.0%}"
        wrong["last steps"] = text
    return count, wrong
