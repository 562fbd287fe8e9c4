"""Probe environments: a few states, written as tables, whose values can be worked out by hand."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments.jax_environment import JaxEnvironment, first, following
from rlws.types import Action, Array, EnvironmentSpec, Key, Observation

STATES, FEATURES, ACTIONS = 64, 6, 2
WIDE = -1.0, 4.0  # bounds, of which neither the middle nor the range may be left out
LIMIT = 16  # steps no probe goes beyond


class Table(NamedTuple):
    """A Markov decision process of S states; arrays, so that several are one compiled program.

    A discrete action a leads from s to `following[s, a]` with reward `reward[s, a]`. A continuous
    one moves as action 0 does, with the reward of action 0 or, where `cost` is not 0, with
    `cost[s] * (1 - (a - best[s])^2)`.
    """

    observation: Any  # [S, FEATURES]
    following: Any  # [S, ACTIONS] int32
    reward: Any  # [S, ACTIONS]
    ends: Any  # [S, ACTIONS] bool, termination
    cost: Any  # [S]
    best: Any  # [S], the best continuous action, as if bounds were -1 and 1
    starts: Any  # int32: an episode begins in any of states 0 to starts - 1
    limit: Any  # int32, steps until an episode is truncated
    legal: Any  # [S, ACTIONS] bool: which discrete actions there are, where masks are shown


class Tabular(JaxEnvironment):
    """Plays a table, which is part of the state of the environment."""

    table: Table
    continuous: bool = False
    wide: bool = False  # whether a continuous action has bounds that are not -1 and 1
    masked: bool = False  # whether observations have an action mask

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest continuous action."""
        return WIDE if self.wide else (-1.0, 1.0)

    def spec(self) -> EnvironmentSpec:
        """Returns the specs: observations float32 [FEATURES]; 2 actions, or one in bounds."""
        observations: Any = specs.Array((FEATURES,), np.float32, "observation")
        if self.masked:
            mask = specs.BoundedArray((ACTIONS,), bool, False, True, "action_mask")
            observations = {"action_mask": mask, "state": observations}
        actions = (
            specs.BoundedArray((1,), np.float32, *self.bounds, "action")
            if self.continuous
            else specs.DiscreteArray(ACTIONS, name="action")
        )
        return EnvironmentSpec(
            observations=observations,
            actions=actions,
            rewards=specs.Array((), np.float32, "reward"),
            discounts=specs.BoundedArray((), np.float32, 0, 1, "discount"),
            max_episode_steps=LIMIT,
        )

    def observe(self, state: Array) -> Observation:
        """Returns what is seen in a state, or in several."""
        observation = self.table.observation[state]
        if not self.masked:
            return observation
        return {"action_mask": self.table.legal[state], "state": observation}

    def reset(self, key: Key) -> tuple[tuple[Array, Array], dm_env.TimeStep]:
        """Begins an episode in any of the first states; the state is (which one, steps so far)."""
        state = jax.random.randint(key, (), 0, self.table.starts, jnp.int32)
        return (state, jnp.int32(0)), first(self.observe(state))

    def step(
        self, state: tuple[Array, Array], action: Action
    ) -> tuple[tuple[Array, Array], dm_env.TimeStep]:
        """Moves as the table says."""
        table, (here, t) = self.table, state
        if self.continuous:
            move = jnp.int32(0)
            low, high = self.bounds
            unit = 2 * (jnp.squeeze(action, -1) - low) / (high - low) - 1
            miss = unit - table.best[here]
            peak = table.cost[here] * (1.0 - miss**2)
            reward = jnp.where(table.cost[here] > 0, peak, table.reward[here, 0])
        else:
            move = action
            reward = table.reward[here, action]
        there = table.following[here, move]
        timestep = following(
            self.observe(there), reward, table.ends[here, move], t + 1 >= table.limit
        )
        return (there, t + 1), timestep


def make_table(
    rewards: Mapping[Any, float] | None = None,
    onward: Mapping[Any, Any] | None = None,
    *,
    starts: int = 1,
    limit: int = LIMIT,
    best: Mapping[int, float] | None = None,
    cost: float = 1.0,
) -> Table:
    """Returns a table, of which what is not named ends the episode without reward.

    The first states are seen as one-hot vectors.

    Args:
      rewards: of states, or of (state, action).
      onward: to which state one of them leads, or two of them by one action each.
      starts: an episode begins in any of so many states.
      limit: steps until an episode is truncated.
      best: the best continuous action in some states.
      cost: what missing one of those by 1 costs, and what it is worth.
    """
    observation = np.zeros((STATES, FEATURES), np.float32)
    observation[:FEATURES] = np.eye(FEATURES)
    table = Table(
        observation=observation,
        following=np.zeros((STATES, ACTIONS), np.int32),
        reward=np.zeros((STATES, ACTIONS), np.float32),
        ends=np.ones((STATES, ACTIONS), bool),
        cost=np.zeros(STATES, np.float32),
        best=np.zeros(STATES, np.float32),
        starts=np.int32(starts),
        limit=np.int32(limit),
        legal=np.ones((STATES, ACTIONS), bool),
    )
    for here, reward in (rewards or {}).items():
        table.reward[here] = reward
    for here, there in (onward or {}).items():
        table.following[here], table.ends[here] = there, False
    for state, action in (best or {}).items():
        table.best[state], table.cost[state] = action, cost
    return table
