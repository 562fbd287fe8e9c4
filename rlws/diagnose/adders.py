"""Checks of an adder: whether trajectories are what happened."""

from typing import Any

import jax
import numpy as np
from dm_env import StepType

from rlws.agent import Agent
from rlws.diagnose.check import Check, Verdict, locate
from rlws.diagnose.stream import NUM_ENVS, ROWS, Stream
from rlws.trainers import core
from rlws.types import Trajectory


def collect(
    agent: Agent, state: core.State, stream: Stream
) -> tuple[list[Trajectory], list[Check]]:
    """Returns the batches an adder makes of the stream, and what is wrong with them."""
    length = agent.adder.schedule(NUM_ENVS).block_length or 8
    add, sample = jax.jit(agent.adder.add), jax.jit(agent.adder.sample)
    adder, batches = state.adder, []
    for number, begin in enumerate(range(0, ROWS - length + 1, length)):
        end = begin + length
        rows = _at(stream.rows, slice(begin, end))
        following = stream.final if end == ROWS else _at(stream.rows.timestep, end)
        adder = add(adder, rows, length, following)
        if agent.adder.ready(adder):
            adder, batch = sample(adder, jax.random.key(number))
            batches.append(jax.device_get(batch))
    name, component = "adder", locate(agent.adder, "sample")
    if not batches:
        none = f"no batch from {ROWS} rows"
        return [], [Check(name, "batches come", "a batch", none, "fail", component)]
    return batches, list(_check_batches(agent, stream, batches, component))


def _check_batches(agent, stream, batches, component):
    index = {
        (env, int(stream.episode[row, env]), int(stream.t[row, env])): row
        for row in range(ROWS + 1)
        for env in range(NUM_ENVS)
    }
    ends: dict[tuple[int, int], int] = {}  # (environment, episode): its last row
    for (env, episode, _), row in index.items():
        ends[env, episode] = max(row, ends.get((env, episode), 0))
    gamma = getattr(agent.adder, "discount", 1.0)
    most = getattr(agent.adder, "n_step", 1)
    timestep = stream.rows.timestep
    reward_of = np.concatenate([timestep.reward, stream.final.reward[None]])
    wrong: dict[str, str] = {}
    steps = finals = 0

    def note(what, text):
        wrong.setdefault(what, text)

    for batch in batches:
        batch = jax.tree.map(np.asarray, batch)
        for i, k in zip(*np.nonzero(batch.weight > 0), strict=True):
            env, episode, t = _place(batch.observation[i, k])
            there = _place(batch.observation[i, k + 1])
            steps += 1
            where = f"environment {env}, episode {episode}, step {t}"
            if there[:2] != (env, episode):
                note("episodes", f"a step from episode {episode} into episode {there[1]}")
                continue
            taken, row = there[2] - t, index.get((env, episode, t), ROWS)
            last = index.get((env, *there[1:])) == ends[env, episode]
            if row >= ROWS or _is_last(stream, row, env) or not 1 <= taken <= most:
                note("order", f"{where} followed by step {there[2]}")
                continue
            reaches_end = last and _is_last(stream, index[env, episode, there[2]], env)
            if taken < most and not reaches_end:
                note("order", f"{where} followed by step {there[2]}, not {t + most}")
            rewards = [reward_of[row + 1 + j, env] for j in range(taken)]
            expected = sum(gamma**j * r for j, r in enumerate(rewards))
            if not np.isclose(batch.reward[i, k], expected, atol=1e-4):
                note("rewards", f"{where}: {batch.reward[i, k]:.3f}, not {expected:.3f}")
            end = stream.terminated[index[env, episode, there[2]], env]
            factor = 0.0 if end else gamma ** (taken - 1)
            if not np.isclose(batch.discount[i, k], factor, atol=1e-5):
                kind = "terminated" if end else "went on, or was truncated"
                note(
                    "discounts",
                    f"{where}, which {kind}: {batch.discount[i, k]:.3f}, not {factor:.3f}",
                )
            if bool(batch.last[i, k]) != reaches_end:
                note("ends", f"{where}: last is {bool(batch.last[i, k])}")
            if bool(batch.first[i, k]) != (t == 0):
                note("ends", f"{where}: first is {bool(batch.first[i, k])}")
            taken_action = _at(stream.rows.action, (row, env))
            same = jax.tree.map(np.array_equal, _at(batch.action, (i, k)), taken_action)
            if not all(jax.tree.leaves(same)):
                note("actions", f"{where}: another action than the one taken")
            finals += reaches_end
    share = (stream.rows.timestep.step_type == StepType.LAST).mean() / (
        stream.rows.timestep.step_type != StepType.LAST
    ).mean()
    if finals < 0.3 * share * steps:
        note("last steps", f"{finals} of {steps} steps end an episode; in the stream, {share:.0%}")
    expectations = {
        "episodes": "no step crosses an episode's end",
        "order": f"steps follow each other{'' if most == 1 else f', {most} at a time'}",
        "rewards": "each step has the rewards that came of it",
        "discounts": "discounts are 0 at termination only",
        "ends": "first and last are where episodes begin and end",
        "actions": "each step has the action that was taken",
        "last steps": "the last step of an episode is experience",
    }
    for what, isolates in expectations.items():
        verdict: Verdict = "fail" if what in wrong else "pass"
        got = wrong.get(what, f"{steps:,} steps")
        yield Check(f"adder: {what}", isolates, "every step", got, verdict, component, isolates)


def _place(observation):
    env, episode, t = np.rint(np.asarray(observation[:3], np.float64) * 8).astype(int)
    return int(env), int(episode), int(t)


def _is_last(stream, row, env):
    types = stream.rows.timestep.step_type
    return bool((types[row, env] if row < ROWS else stream.final.step_type[env]) == StepType.LAST)


def _at(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)
