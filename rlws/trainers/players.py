"""Environments on the host, one or many, as a trainer steps them."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from rlws import checkpoint, environments
from rlws.environments import resolve, rules
from rlws.environments.actions import bounded
from rlws.environments.checks import (
    EnvironmentFault,
    blame,
    check_first,
    check_rules,
    check_same,
    check_timestep,
    filled,
    named,
)
from rlws.types import Action, EnvironmentSpec

if TYPE_CHECKING:
    from rlws.environments.vector import VectorEnvironment

LAST = dm_env.StepType.LAST
LONG = 100_000  # actions of one episode, of which a log is kept


class Players:
    """B environments, each at its timestep, and what happened in them.

    Attributes:
      spec: of one environment.
      timesteps: to be acted on next; one of each environment, or batched with leaves [B, ...].
      steps: environment steps so far.
      episodes: ended so far.
      episode_limit: steps at which an episode counts as ended, though it may go on.
      ended: returns and lengths of those since whoever reads it last emptied it.
      anew: episodes that a resumed run could not go on with, so far.
      warnings: what there is to say of them, likewise.
      episode, length: the number of each environment's episode, and its steps so far.
    """

    spec: EnvironmentSpec
    timesteps: Any
    episode: Any
    length: Any

    def __init__(self, num_envs: int):
        self.num_envs, self.steps, self.episodes, self.anew = num_envs, 0, 0, 0
        self.episode_limit = math.inf
        self.ended, self.warnings = list[tuple[float, int]](), list[str]()

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

    def save(self, ended: list[tuple[float, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns where the environments are, as arrays and as facts; `ended` as it shall be."""
        arrays = {"timestep": self.batch(), "ended": np.array(ended, np.float64).reshape(-1, 2)}
        facts: dict[str, Any] = {"steps": self.steps, "episodes": self.episodes, "anew": self.anew}
        facts["episode"], facts["length"] = [list(map(int, x)) for x in self.begun()]
        return arrays, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Takes the environments to where they were saved.

        Where that cannot be, the unfinished episodes end there, truncated, and new ones begin.
        """
        ended = arrays["environments/ended"]
        self.ended.extend((float(total), int(length)) for total, length in ended)
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
                with named(f"environment {index - first}, when it is made"):
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
        self.timesteps = []
        for index, env in enumerate(envs):
            who = f"environment {index}, episode 0, step 0"
            check_same(self.spec, environments.spec(env), index)
            with named(who):
                self.timesteps.append(env.reset())
            check_first(self.spec, self.timesteps[index], who)
        self.episode, self.length = [0] * len(envs), [0] * len(envs)
        self._restart, self._return = [False] * len(envs), [0.0] * len(envs)
        # Of the episodes that are going on, where they can be played again; None: of one that is
        # too long.
        self._log: list[list[Any] | None] = [self._fresh_log(env) for env in envs]
        self._split = splitter(self.spec.actions, lambda i: self.who(i, 1))
        self._asked: int | None = None

    def _fresh_log(self, env):
        return [] if hasattr(env, "episode") else None

    def asked(self):
        i = self._asked
        return None if i is None else (self.who(i, not self._restart[i]), self.steps)

    def step(self, actions):
        try:
            ends = self._step(actions)
        except (Exception, SystemExit) as error:
            self._explain(error, actions)
            raise
        self._asked = None
        return ends

    def _step(self, actions):
        timesteps, restart, actions = self.timesteps, self._restart, self._split(actions)
        returns, lengths, logs, ends = self._return, self.length, self._log, 0
        for i, env in enumerate(self._envs):
            self._asked = i
            if restart[i]:
                returns[i], lengths[i], logs[i] = 0.0, 0, self._fresh_log(env)
                self.episode[i] += 1
                timesteps[i], restart[i] = env.reset(), False
                continue
            timesteps[i] = timestep = env.step(actions[i])
            if (log := logs[i]) is not None:
                log.append(actions[i])
            self.steps += 1
            if timestep.reward is None:
                raise EnvironmentFault(
                    f"{self.who(i, 1)}: step must return a reward with step_type MID or LAST, got "
                    f"None with {timestep.step_type!r}; FIRST comes from reset, or after LAST"
                )
            returns[i] += timestep.reward
            lengths[i] += 1
            if timestep.step_type == LAST:
                self.ended.append((returns[i], lengths[i]))
                restart[i] = True
                self.episodes += 1
                ends += 1
            elif lengths[i] == self.episode_limit:
                ends += 1
            if lengths[i] == LONG and log is not None:
                self._give_up(i)
        return ends

    def _explain(self, error: BaseException, actions: Action) -> None:
        """Raises what led to an error, or notes in it where it came from."""
        i = self._asked
        if i is None:  # before any environment was
            return
        _check_actions(self, actions)
        who = self.who(i, not self._restart[i])
        check_timestep(self.spec, self.timesteps[i], who)
        blame(error, who, f", after {self.steps:,} steps of all")

    def _give_up(self, i: int) -> None:
        self._log[i] = None
        self.warnings.append(
            f"{self.who(i)}: no longer kept for being played again; a run resumed during this "
            "episode begins it anew"
        )

    def close(self):
        with contextlib.ExitStack() as stack:
            for env in self._envs:
                stack.callback(env.close)

    def batch(self):
        return jax.tree.map(lambda *x: np.stack(x), *map(filled, self.timesteps))

    def save(self, ended):
        arrays, facts = super().save(ended)
        facts["restart"] = [*self._restart]
        facts["logged"] = [log is not None for log in self._log]
        facts["next"] = [getattr(env, "episode", None) for env in self._envs]
        arrays["returns"] = np.array(self._return, np.float64)
        for i, log in enumerate(self._log):
            if log:
                arrays[f"actions_{i}"] = jax.tree.map(lambda *x: np.stack(x), *log)
        return arrays, facts

    def restore(self, arrays, facts):
        super().restore(arrays, facts)
        self.episode, self._return = [*facts["episode"]], arrays["environments/returns"].tolist()
        batch = checkpoint.restore(self.batch(), arrays, "environments/timestep")
        for i, env in enumerate(self._envs):
            saved = jax.tree.map(lambda x, i=i: x[i], batch)
            self.length[i], self._restart[i] = facts["length"][i], facts["restart"][i]
            if facts["logged"][i]:
                with named(self.asked, "while its actions are played again"):
                    self._replay(i, env, facts["next"][i], arrays)
                if _equal(filled(self.timesteps[i]), saved):
                    self._restart[i] = facts["restart"][i]
                    continue
            elif facts["next"][i] is not None:
                env.episode = facts["next"][i]
            if facts["next"][i] is not None:
                self.warnings.append(
                    f"environment {i} could not repeat episode {self.episode[i]}, which ends "
                    "here; from here on this run is another than it would be without the stop"
                )
            self._lose(i, saved)

    def _lose(self, i: int, saved: dm_env.TimeStep) -> None:
        """Ends the unfinished episode of an environment that is somewhere else by now."""
        self.anew += not saved.last()
        if not saved.first():
            self.timesteps[i] = saved._replace(step_type=LAST)
        self._restart[i] = not saved.first()
        self._return[i], self._log[i] = 0.0, self._fresh_log(self._envs[i])

    def _replay(self, i, env, following, arrays):
        env.episode = following - 1
        self._asked, self.length[i], self._restart[i] = i, 0, True
        self.timesteps[i] = env.reset()
        self._restart[i], self._log[i] = False, (log := list[Any]())
        saved = checkpoint.below(arrays, f"environments/actions_{i}").values()
        tree = jax.tree.structure(self.spec.actions)
        for leaves in zip(*saved, strict=True):
            action = tree.unflatten([x.item() if x.ndim == 0 else x for x in leaves])
            self.timesteps[i] = env.step(action)
            self.length[i] += 1
            log.append(action)
        self._asked = None


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
        self.episode, self.length = np.zeros((2, self.num_envs), np.int64)
        first = jax.tree.map(lambda x: x[None], self.timesteps)
        check_rules(rules.of_timesteps(first), lambda t, i: self.who(i))
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
        self.episode, self.length = np.array([facts["episode"], facts["length"]])
        saved = checkpoint.restore(self.timesteps, arrays, "environments/timestep")
        self.anew += int((saved.step_type != LAST).sum())
        last = np.full(self.num_envs, LAST, np.int32)
        self.timesteps, self._anew = saved._replace(step_type=last), self.timesteps
        self._last[:] = True

    def step(self, actions):
        chosen = actions
        if self._clip:
            actions = environments.clip_actions(self.spec.actions, actions)
        anew, self._anew = self._anew, None
        self._asked = True
        try:
            self.timesteps = self._envs.step(actions) if anew is None else anew
        except (Exception, SystemExit) as error:
            _check_actions(self, chosen)
            i = self._envs.culprit(error)
            who = f"one of the {self.num_envs} environments"
            if i is not None:
                who = self.who(i, 1) if not self._last[i] else f"environment {i}, at a reset"
            blame(error, who, f", after {self.steps:,} steps of all")
            raise
        self._asked = False
        step_type, reward, *_ = self.timesteps
        returns, lengths = self._return, self.length
        returns += reward
        lengths += 1
        if any_last := self._last.any():  # those have just begun anew
            returns[self._last], lengths[self._last] = 0.0, 0
            self.episode[self._last] += 1
        self.steps += self.num_envs - (int(self._last.sum()) if any_last else 0)
        self._last = last = step_type == LAST
        ends = int(last.sum())
        if ends:
            self.ended.extend(zip(returns[last].tolist(), lengths[last].tolist(), strict=True))
            self.episodes += ends
        if self.episode_limit < np.inf:
            ends += int(((lengths == self.episode_limit) & ~last).sum())
        return ends


def _check_actions(play: Players, actions: Action) -> None:
    batch = jax.tree.map(lambda x: np.asarray(x)[None], actions)
    check_rules(rules.of_actions(play.spec.actions, batch), lambda t, i: play.who(i, 1))


def splitter(spec: Any, who: Callable[[int], str]) -> Callable[[Any], list[Any]]:
    """Returns the function from actions (leaves [B, ...]) to a legal one for each environment.

    It raises a AgentFault where one is chosen of which there are fewer; `who` returns what to call
    the environment then.
    """
    clip = bounded(spec)
    tree = jax.tree.structure(spec)
    count = spec.num_values if isinstance(spec, specs.DiscreteArray) else None

    def split(actions):
        if clip:
            actions = environments.clip_actions(spec, actions)
        # Python numbers for scalars: environments check those faster than NumPy's.
        leaves = [x.tolist() if x.ndim == 1 else list(x) for x in jax.tree.leaves(actions)]
        if len(leaves) == 1 and tree == _LEAF:
            if count is not None:
                for action in leaves[0]:
                    if not 0 <= action < count:
                        found = rules.of_actions(spec, np.asarray(actions)[None])
                        check_rules(found, lambda t, i: who(i))
            return leaves[0]
        return [tree.unflatten(leaf) for leaf in zip(*leaves, strict=True)]

    return split


_LEAF = jax.tree.structure(0)
