"""Environments on the host, one or many, as a trainer steps them."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dm_env
import jax
import numpy as np

from rlws import environments
from rlws.environments.actions import bounded
from rlws.environments.checks import check_first, check_same
from rlws.types import Action, EnvironmentSpec

if TYPE_CHECKING:
    from rlws.environments.vector import VectorEnvironment

LAST = dm_env.StepType.LAST


class Players:
    """B environments, each at its timestep, and what happened in them.

    Attributes:
      spec: of one environment.
      timesteps: to be acted on next; one of each environment, or batched with leaves [B, ...].
      steps: environment steps so far.
      episodes: ended so far.
      episode_limit: steps at which an episode counts as ended, though it may go on.
      ended: returns and lengths of those since whoever reads it last emptied it.
    """

    spec: EnvironmentSpec
    timesteps: Any

    def __init__(self, num_envs: int):
        self.num_envs, self.steps, self.episodes = num_envs, 0, 0
        self.episode_limit = math.inf
        self.ended = list[tuple[float, int]]()

    def step(self, actions: Action) -> int:
        """Takes actions, leaves [B, ...], or begins new episodes where one has ended.

        Returns:
          How many episodes ended, or reached the length at which they count as ended.
        """
        raise NotImplementedError


class Serial(Players):
    """dm_env environments, stepped one after the other."""

    def __init__(self, envs: list[dm_env.Environment]):
        super().__init__(len(envs))
        self._envs = envs
        self.spec = environments.spec(envs[0])
        self.timesteps = [env.reset() for env in envs]
        for index, (env, timestep) in enumerate(zip(envs, self.timesteps, strict=True)):
            check_same(self.spec, environments.spec(env), index)
            check_first(self.spec, timestep, index)
        self._restart, self._length = [False] * len(envs), [0] * len(envs)
        self._return = [0.0] * len(envs)
        self._split = splitter(self.spec.actions)

    def step(self, actions):
        timesteps, restart, actions = self.timesteps, self._restart, self._split(actions)
        returns, lengths, ends = self._return, self._length, 0
        for i, env in enumerate(self._envs):
            if restart[i]:
                timesteps[i], restart[i] = env.reset(), False
                continue
            timesteps[i] = timestep = env.step(actions[i])
            self.steps += 1
            returns[i] += timestep.reward
            lengths[i] += 1
            if timestep.step_type == LAST:
                self.ended.append((returns[i], lengths[i]))
                restart[i], returns[i], lengths[i] = True, 0.0, 0
                self.episodes += 1
                ends += 1
            elif lengths[i] == self.episode_limit:
                ends += 1
        return ends


class Vector(Players):
    """Environments that are stepped together."""

    def __init__(self, envs: "VectorEnvironment"):
        super().__init__(envs.num_envs)
        self._envs, self.spec = envs, envs.spec
        self.timesteps = envs.reset()
        self._return = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)
        self._clip = bounded(self.spec.actions)
        self._last = np.zeros(self.num_envs, bool)

    def step(self, actions):
        if self._clip:
            actions = environments.clip_actions(self.spec.actions, actions)
        self.timesteps = step_type, reward, *_ = self._envs.step(actions)
        returns, lengths = self._return, self._length
        returns += reward
        lengths += 1
        if any_last := self._last.any():  # those have just begun anew
            returns[self._last], lengths[self._last] = 0.0, 0
        self.steps += self.num_envs - (int(self._last.sum()) if any_last else 0)
        self._last = last = step_type == LAST
        ends = int(last.sum())
        if ends:
            self.ended.extend(zip(returns[last].tolist(), lengths[last].tolist(), strict=True))
            self.episodes += ends
        if self.episode_limit < np.inf:
            ends += int(((lengths == self.episode_limit) & ~last).sum())
        return ends


def splitter(spec: Any) -> Callable[[Any], list[Any]]:
    """Returns the function from actions (leaves [B, ...]) to a legal one for each environment."""
    clip = bounded(spec)
    tree = jax.tree.structure(spec)

    def split(actions):
        if clip:
            actions = environments.clip_actions(spec, actions)
        # Python numbers for scalars: environments check those faster than NumPy's.
        leaves = [x.tolist() if x.ndim == 1 else list(x) for x in jax.tree.leaves(actions)]
        if len(leaves) == 1 and tree == _LEAF:
            return leaves[0]
        return [tree.unflatten(leaf) for leaf in zip(*leaves, strict=True)]

    return split


_LEAF = jax.tree.structure(0)
