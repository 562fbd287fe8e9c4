"""What environments on the host are to whoever steps them."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from rlws import environments
from rlws.environments import rules
from rlws.environments.actions import bounded
from rlws.environments.checks import check_rules
from rlws.types import Action, EnvironmentSpec


class HostEnvironments:
    """B environments, each at its timestep, and what happened in them.

    Attributes:
      spec: of one environment.
      timesteps: to be acted on next; one of each environment, or batched with leaves [B, ...].
      steps: environment steps so far.
      episodes: ended so far.
      episode_limit: steps at which an episode counts as ended, though it may go on.
      ended: returns, lengths and info of those since whoever reads it last emptied it.
      info: how many numbers are kept of what an environment says in an episode.
      anew: episodes that a resumed run could not go on with, so far.
      warnings: what there is to say of them, likewise.
      episode, length: the number of each environment's episode, and its steps so far.
    """

    spec: EnvironmentSpec
    timesteps: Any
    episode: Any
    length: Any
    info = 0

    def __init__(self, num_envs: int):
        self.num_envs, self.steps, self.episodes, self.anew = num_envs, 0, 0, 0
        self.episode_limit = math.inf
        self.ended, self.warnings = list[tuple[float, ...]](), list[str]()

    def who(self, i: int, step: int = 0) -> str:
        """Returns what to call an environment, so many steps from now."""
        return f"environment {i}, episode {self.episode[i]}, step {self.length[i] + step}"

    def begun(self) -> tuple[Sequence[int], Sequence[int]]:
        """Returns the episode of each environment and the steps of it so far, as they are now."""
        return self.episode.copy(), self.length.copy()

    def step(self, actions: Action) -> int:
        """Takes actions, leaves [B, ...], or begins new episodes where one has ended.

        Returns:
          How many episodes ended, or reached the length at which they count as ended.
        """
        raise NotImplementedError

    def table(self, ended: Iterable[Sequence[float]]) -> np.ndarray:
        """Returns what ended as an array, float64 [n, 2 + info]."""
        return np.array([*ended], np.float64).reshape(-1, 2 + self.info)

    def save(self, ended: list[tuple[float, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns where the environments are, as arrays and as facts; `ended` as it shall be."""
        arrays = {"timestep": self.batch(), "ended": self.table(ended)}
        facts: dict[str, Any] = {"steps": self.steps, "episodes": self.episodes, "anew": self.anew}
        facts["episode"], facts["length"] = [list(map(int, x)) for x in self.begun()]
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Takes the environments to where they were saved.

        Where that cannot be, the unfinished episodes end there, truncated, and new ones begin.
        """
        ended = arrays["environments/ended"]
        if ended.shape[1:] != (2 + self.info,):  # another choice of info: of these there is none
            ended = np.column_stack([ended[:, :2], np.full((len(ended), self.info), np.nan)])
        self.ended.extend(map(tuple, ended.tolist()))
        self.steps, self.episodes, self.anew = facts["steps"], facts["episodes"], facts["anew"]

    def batch(self) -> dm_env.TimeStep:
        """Returns the timesteps with leaves [B, ...]."""
        return self.timesteps

    def asked(self) -> tuple[str, int] | None:
        """Returns which environment is being stepped, at which step of all; None: none is."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the environments."""
        raise NotImplementedError


def check_actions(envs: HostEnvironments, actions: Action) -> None:
    """Raises AgentFault where an action is none of those there are."""
    batch = jax.tree.map(lambda x: np.asarray(x)[None], actions)
    check_rules(rules.of_actions(envs.spec.actions, batch), lambda t, i: envs.who(i, 1))


def splitter(spec: Any, who: Callable[[int], str]) -> Callable[[Any], list[Any]]:
    """Returns the function from actions (leaves [B, ...]) to a legal one for each environment.

    It raises a AgentFault where one is chosen of which there are fewer; `who` returns what to call
    the environment then.
    """
    clip = bounded(spec)
    tree = jax.tree.structure(spec)
    kinds = [leaf.dtype for leaf in jax.tree.leaves(spec)]
    count = spec.num_values if isinstance(spec, specs.DiscreteArray) else None

    def split(actions):
        if clip:
            actions = environments.clip_actions(spec, actions)
        # As a spec generates them: of its type, and copies, as an environment may change them.
        leaves = [
            list(map(kind.type, x.tolist())) if x.ndim == 1 else list(np.array(x, kind))
            for x, kind in zip(jax.tree.leaves(actions), kinds, strict=True)
        ]
        if not isinstance(spec, specs.Array):
            return [tree.unflatten(leaf) for leaf in zip(*leaves, strict=True)]
        for action in leaves[0] if count is not None else ():
            if not 0 <= action < count:
                found = rules.of_actions(spec, np.asarray(actions)[None])
                check_rules(found, lambda t, i: who(i))
        return leaves[0]

    return split
