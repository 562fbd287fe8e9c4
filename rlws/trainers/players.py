"""Environments on the host, one or many, as a trainer steps them."""

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import dm_env
import jax
import numpy as np

from rlws import checkpoint, environments
from rlws.environments import resolve
from rlws.environments.actions import bounded
from rlws.environments.checks import EnvironmentFault, check_first, check_same, check_timestep
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

    def save(self, ended: list[tuple[float, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns where the environments are, as arrays and as facts; `ended` as it shall be."""
        arrays = {"timestep": self.batch(), "ended": np.array(ended, np.float64).reshape(-1, 2)}
        return arrays, {"steps": self.steps, "episodes": self.episodes}

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Takes the environments to where they were saved.

        Where that cannot be, the unfinished episodes end there, truncated, and new ones begin.
        """
        ended = arrays["environments/ended"]
        self.ended.extend((float(total), int(length)) for total, length in ended)
        self.steps, self.episodes = facts["steps"], facts["episodes"]

    def batch(self) -> dm_env.TimeStep:
        """Returns the timesteps with leaves [B, ...]."""
        return self.timesteps

    def asked(self) -> tuple[str, int] | None:
        """Returns which environment is being stepped, at which step of all; None: none is."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes the environments."""
        raise NotImplementedError


def make_players(
    environment: Any, num_envs: int, vectorization: str, seed: int, begin: int = 0, first: int = 0
) -> Players:
    """Returns `num_envs` environments of a run, stepped one after the other or together.

    Args:
      environment: a name, a JaxEnvironment or a function of (seed, index).
      num_envs: B.
      vectorization: as of `HostTrainer`.
      seed: of the run.
      begin: another number gives other episodes, where environments are stepped together.
      first: the number of the first among those of the run.
    """
    if vectorization == "serial":
        envs: list[dm_env.Environment] = []
        try:
            for index in range(first, first + num_envs):
                envs.append(resolve.host(environment, seed, index))
            return Serial(envs)
        except BaseException:
            for env in envs:
                env.close()
            raise
    from rlws.environments.vector import make_vector  # slow to import

    return Vector(make_vector(environment, num_envs, seed, vectorization, begin, first))


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
        # Of the episodes that are going on: with them, they can be played again.
        self._actions: list[list[Any]] = [[] for _ in envs]
        self._split = splitter(self.spec.actions)
        self._asked: int | None = None

    def asked(self):
        i = self._asked
        if i is None:
            return None
        episode = getattr(self._envs[i], "episode", None)
        which = "" if episode is None else f", episode {episode - 1}"
        return f"environment {i}{which}, step {self._length[i]}", self.steps

    def step(self, actions):
        try:
            ends = self._step(actions)
        except (Exception, SystemExit) as error:
            where, steps = self.asked() or ("an environment", self.steps)
            if self._asked is not None:
                check_timestep(self.spec, self.timesteps[self._asked], self._asked)
            if isinstance(error, SystemExit):  # which would end the run as if all were well
                raise EnvironmentFault(f"{where} must not exit, got {error!r}") from error
            error.add_note(f"{where}, after {steps:,} steps of all")
            raise
        self._asked = None
        return ends

    def _step(self, actions):
        timesteps, restart, actions = self.timesteps, self._restart, self._split(actions)
        returns, lengths, played, ends = self._return, self._length, self._actions, 0
        for i, env in enumerate(self._envs):
            self._asked = i
            if restart[i]:
                timesteps[i], restart[i] = env.reset(), False
                played[i].clear()
                continue
            timesteps[i] = timestep = env.step(actions[i])
            played[i].append(actions[i])
            self.steps += 1
            if timestep.reward is None:
                raise EnvironmentFault(
                    f"environment {i}: step must return a reward with step_type MID or LAST, got "
                    f"None with {timestep.step_type!r}; FIRST comes from reset, or after LAST"
                )
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

    def close(self):
        with contextlib.ExitStack() as stack:
            for env in self._envs:
                stack.callback(env.close)

    def batch(self):
        return jax.tree.map(lambda *x: np.stack(x), *map(_filled, self.timesteps))

    def save(self, ended):
        arrays, facts = super().save(ended)
        facts |= {"restart": [*self._restart], "lengths": [*self._length]}
        arrays["returns"] = np.array(self._return, np.float64)
        for i, (env, actions) in enumerate(zip(self._envs, self._actions, strict=True)):
            facts.setdefault("episode", []).append(getattr(env, "episode", None))
            if actions:
                arrays[f"actions_{i}"] = jax.tree.map(lambda *x: np.stack(x), *actions)
        return arrays, facts

    def restore(self, arrays, facts):
        super().restore(arrays, facts)
        self._restart, self._length = list(facts["restart"]), list(facts["lengths"])
        self._return = arrays["environments/returns"].tolist()
        batch = checkpoint.restore(self.batch(), arrays, "environments/timestep")
        for i, env in enumerate(self._envs):
            saved = jax.tree.map(lambda x, i=i: x[i], batch)
            if (episode := facts["episode"][i]) is not None:
                self._replay(i, env, episode, arrays)
                if _equal(_filled(self.timesteps[i]), saved):
                    continue
                warnings.warn(
                    f"environment {i} did not repeat its episode when its actions were played "
                    "again; a new one begins",
                    stacklevel=2,
                )
            if not saved.first():
                self.timesteps[i] = saved._replace(step_type=LAST)
            self._restart[i] = not saved.first()
            self._return[i], self._length[i] = 0.0, 0
            self._actions[i].clear()

    def _replay(self, i, env, episode, arrays):
        env.episode = episode - 1
        self.timesteps[i] = env.reset()
        log = checkpoint.below(arrays, f"environments/actions_{i}").values()
        tree = jax.tree.structure(self.spec.actions)
        for leaves in zip(*log, strict=True):
            action = tree.unflatten([x.item() if x.ndim == 0 else x for x in leaves])
            self.timesteps[i] = env.step(action)
            self._actions[i].append(action)


def _filled(timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
        np.int32(step_type),
        np.float64(reward or 0.0),
        np.float64(1.0 if discount is None else discount),
        jax.tree.map(np.asarray, observation),
    )


def _equal(one: Any, other: Any) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


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
        self._anew: Any = None  # the first timesteps of a resumed run, to come next
        self._asked = False

    def asked(self):
        text = f"one of the {self.num_envs} environments, stepped together,"
        return (text, self.steps) if self._asked else None

    def close(self):
        self._envs.close()

    def restore(self, arrays, facts):
        super().restore(arrays, facts)
        saved = checkpoint.restore(self.timesteps, arrays, "environments/timestep")
        last = np.full(self.num_envs, LAST, np.int32)
        self.timesteps, self._anew = saved._replace(step_type=last), self.timesteps
        self._last[:] = True

    def step(self, actions):
        if self._clip:
            actions = environments.clip_actions(self.spec.actions, actions)
        anew, self._anew = self._anew, None
        self._asked = True
        try:
            self.timesteps = self._envs.step(actions) if anew is None else anew
        except Exception as error:
            error.add_note(f"one of the {self.num_envs} environments, after {self.steps:,} steps")
            raise
        self._asked = False
        step_type, reward, *_ = self.timesteps
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
