"""Blocks of rows, those played on the device above all, and whether they are as they must be."""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.environments import rules
from rlws.environments.checks import check_rules
from rlws.types import Array, EnvironmentSpec, Row


class DeviceBlock(NamedTuple):
    """Rows, and all it takes to say in the host's words what is wrong with them."""

    rows: Row  # leaves [T, B, ...]
    timestep: dm_env.TimeStep  # to which the last one led, leaves [B, ...]
    episode: Array  # [B], in which the first row is
    step: Array  # [B], of that episode
    counts: Array  # [T, B], which rows do

    def sound(self, spec: EnvironmentSpec) -> Array:
        """Returns whether no rule is broken."""
        return kept(self._rules(spec, jnp))

    def check(self, spec: EnvironmentSpec, name: str, where: str = "") -> None:
        """Says what is wrong with a block, which is not sound, of an environment of this name.

        Raises:
          AgentFault: an action is not finite, or not within its bounds.
          EnvironmentFault: a timestep is not as it must be.
        """
        block = jax.device_get(self)

        def who(t, i):  # row t leads to timestep t + 1
            begun = block.episode[i], block.step[i]
            place = whereabouts(block.rows.timestep.step_type[: t + 1, i], *begun)
            return f"{name}, environment {i}{where}, {place}"

        check_rules(block._rules(spec, np), who)
        raise RuntimeError("a rule is broken on the device that NumPy finds kept")

    def _rules(self, spec: EnvironmentSpec, xp: Any) -> list[rules.Rule]:
        found = rules_of(spec, self.rows, self.timestep, xp)
        counts = lambda x: self.counts.reshape(self.counts.shape + (1,) * (x.ndim - 2))
        return [rule._replace(broken=rule.broken & counts(rule.broken)) for rule in found]


def whereabouts(step_type: np.ndarray, episode: int, step: int) -> str:
    """Returns in which episode, and at which step of it, a timestep is that follows some rows.

    Args:
      step_type: [t], of these rows; after each LAST there is a new episode.
      episode, step: where the first of them is.
    """
    ends, count = np.flatnonzero(step_type == rules.LAST), len(step_type)
    step = count - ends[-1] - 1 if len(ends) else step + count
    return f"episode {episode + len(ends)}, step {step}"


def rules_of(
    spec: EnvironmentSpec, rows: Row, timestep: dm_env.TimeStep, xp: Any = np
) -> list[rules.Rule]:
    """Returns the rules for rows [T, B, ...], of which the last led to `timestep`."""
    join = lambda x, last: xp.concatenate([x[1:], last[None]])
    after = jax.tree.map(join, rows.timestep, timestep)
    return rules.rules(spec, rows.action, rows.timestep.step_type, after, xp)


def kept(found: list[rules.Rule]) -> Array:
    """Returns whether none of these rules is broken."""
    return ~jnp.stack([rule.broken.any() for rule in found]).any()


def check_begun(
    spec: EnvironmentSpec, timestep: dm_env.TimeStep, name: str, where: str = ""
) -> None:
    """Checks the timesteps in which first episodes begin, leaves [B, ...].

    Raises:
      EnvironmentFault: one is not as it must be.
    """
    first = jax.tree.map(lambda x: np.asarray(x)[None], timestep)
    who = lambda t, i: f"{name}, environment {i}{where}, episode 0, step 0"
    check_rules(rules.of_timesteps(spec, first), who)
