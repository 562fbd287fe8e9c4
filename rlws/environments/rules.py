"""What the steps of a run must be, on the side of the policy and of the environment.

Written once for NumPy and for JAX: a host looks at blocks of rows, a device within its program.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
from dm_env import specs

FIRST, LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)


class Rule(NamedTuple):
    """What numbers must be, and where they are not."""

    name: str  # of the numbers, such as "observation['position']"
    must: str
    x: Any  # the numbers, [T, B, ...]
    broken: Any  # bool, of the same shape
    whose: str = "environment"  # or "policy"


def rules(
    spec: Any, action: Any, step_type: Any, after: dm_env.TimeStep, xp: Any = np
) -> list[Rule]:
    """Returns the rules for steps [T, B]; of a step, the earlier rule is the cause of the later.

    Args:
      spec: of an action, maybe nested.
      action: what the policy chose, leaves [T, B, ...].
      step_type: of the timesteps in which it did, [T, B].
      after: the timesteps that this led to, leaves [T, B, ...].
      xp: numpy or jax.numpy.
    """
    restarted, ended = after.step_type == FIRST, step_type == LAST
    broken = (restarted != ended) | (after.step_type < 0) | (after.step_type > LAST)
    must = "FIRST (0) after a LAST (2) and only there, else MID (1) or LAST"
    order = Rule("step_type", must, after.step_type, broken)
    return [*of_actions(spec, action, xp), order, *of_timesteps(after, xp)]


def nth(spec: Any, timestep: dm_env.TimeStep, number: int) -> Rule:
    """Returns one of `rules`, for what it says; of `timestep`, leaves [B, ...], types matter."""
    zeros = lambda tree: jax.tree.map(lambda x: np.zeros((1, 1), x.dtype), tree)
    return rules(spec, zeros(spec), np.zeros((1, 1), int), zeros(timestep))[number]


def of_actions(spec: Any, action: Any, xp: Any = np) -> list[Rule]:
    """Returns the rules for actions, leaves [T, B, ...]; beyond bounds, real ones are clipped."""
    found = []
    leaves = zip(jax.tree.leaves_with_path(spec), jax.tree.leaves(action), strict=True)
    for (path, leaf), x in leaves:
        name = f"action{jax.tree_util.keystr(path)}"
        bounded = isinstance(leaf, specs.BoundedArray)
        if _floating(x):
            broken = xp.isnan(x) if bounded else ~xp.isfinite(x)
            found.append(Rule(name, "finite", x, broken, "policy"))
        elif bounded and x.dtype != bool:
            low, high = leaf.minimum, leaf.maximum
            must = f"within [{low}, {high}]"
            found.append(Rule(name, must, x, (x < low) | (x > high), "policy"))
    return found


def of_timesteps(timestep: dm_env.TimeStep, xp: Any = np) -> list[Rule]:
    """Returns the rules for the numbers in timesteps, leaves [T, B, ...]."""
    discount = timestep.discount
    within = (discount >= 0) & (discount <= 1)
    found = [Rule("discount", "within [0, 1]", discount, ~within)]
    if _floating(reward := timestep.reward):
        found.append(Rule("reward", "finite", reward, ~xp.isfinite(reward)))
    for path, x in jax.tree.leaves_with_path(timestep.observation):
        if _floating(x):
            name = f"observation{jax.tree_util.keystr(path)}"
            found.append(Rule(name, "finite", x, ~xp.isfinite(x)))
    return found


def _floating(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, np.floating)  # which knows bfloat16, too


def earliest(found: list[Rule]) -> tuple[Rule, tuple[int, ...]] | None:
    """Returns, of NumPy's, the rule that is broken first, and where: [t, environment, ...]."""
    first = None
    for rule in found:
        if rule.broken.any():
            place = tuple(map(int, np.argwhere(rule.broken)[0]))
            if first is None or place[0] < first[1][0]:
                first = rule, place
    return first
