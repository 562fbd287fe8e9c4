"""Environments that are stepped one after the other, and can play an episode again."""

import contextlib
from typing import Any

import dm_env
import jax
import numpy as np

from rlws import environments
from rlws.environments import checks
from rlws.environments.repeats import numbered
from rlws.numerics import trees
from rlws.trainers.host_environments.environments import HostEnvironments, check_actions, splitter
from rlws.types import Action

LAST = dm_env.StepType.LAST
LONG = 100_000  # actions of one episode, of which a log is kept


class Serial(HostEnvironments):
    """dm_env environments, stepped one after the other."""

    def __init__(self, envs: list[dm_env.Environment], info: int = 0):
        super().__init__(len(envs))
        self.info = info
        self._envs = envs
        self.spec = environments.spec(envs[0])
        self.timesteps = []
        for index, env in enumerate(envs):
            who = f"environment {index}, episode 0, step 0"
            checks.check_same(self.spec, environments.spec(env), index)
            with checks.named(who):
                self.timesteps.append(env.reset())
            checks.check_first(self.spec, self.timesteps[index], who)
        self.episode, self.length = [0] * len(envs), [0] * len(envs)
        self._restart, self._return = [False] * len(envs), [0.0] * len(envs)
        # Of the episodes that are going on, where they can be played again; None: of one that is
        # too long.
        self._log: list[list[Any] | None] = [self._fresh_log(env) for env in envs]
        self._split = splitter(self.spec.actions, lambda i: self.who(i, 1))
        self._asked: int | None = None

    def _fresh_log(self, env):
        return [] if numbered(env) else None

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
            action = actions[i]
            timesteps[i] = timestep = env.step(action if logs[i] is None else copied(action))
            if (log := logs[i]) is not None:
                log.append(action)
            self.steps += 1
            if timestep.reward is None:
                raise checks.EnvironmentFault(
                    f"{self.who(i, 1)}: step must return a reward with step_type MID or LAST, got "
                    f"None with {timestep.step_type!r}; FIRST comes from reset, or after LAST"
                )
            returns[i] += timestep.reward
            lengths[i] += 1
            if timestep.step_type == LAST:
                info = env.episode_info() if self.info else ()
                self.ended.append((returns[i], lengths[i], *info))
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
        check_actions(self, actions)
        who = self.who(i, not self._restart[i])
        checks.check_timestep(self.spec, self.timesteps[i], who)
        checks.blame(error, who, f", after {self.steps:,} steps of all")

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
        return jax.tree.map(lambda *x: np.stack(x), *map(checks.filled, self.timesteps))

    def save(self, ended):
        arrays, facts = super().save(ended)
        facts["restart"] = [*self._restart]
        facts["logged"] = [log is not None for log in self._log]
        facts["next"] = [env.episode if numbered(env) else None for env in self._envs]
        arrays["returns"] = np.array(self._return, np.float64)
        for i, log in enumerate(self._log):
            if log:
                arrays[f"actions_{i}"] = jax.tree.map(lambda *x: np.stack(x), *log)
        return arrays, facts

    def restore(self, arrays, facts):
        super().restore(arrays, facts)
        self.episode, self._return = [*facts["episode"]], arrays["environments/returns"].tolist()
        batch = trees.restore(self.batch(), arrays, "environments/timestep")
        for i, env in enumerate(self._envs):
            saved = jax.tree.map(lambda x, i=i: x[i], batch)
            self.length[i], self._restart[i] = facts["length"][i], facts["restart"][i]
            if facts["logged"][i] and numbered(env):
                with checks.named(self.asked, "while its actions are played again"):
                    self._replay(i, env, facts["next"][i], arrays)
                both = map(jax.tree.leaves, (checks.filled(self.timesteps[i]), saved))
                if all(np.array_equal(x, y) for x, y in zip(*both, strict=True)):
                    self._restart[i] = facts["restart"][i]
                    continue
            elif numbered(env) and facts["next"][i] is not None:
                env.episode = facts["next"][i]
            if numbered(env) and facts["next"][i] is not None:
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
        saved = trees.below(arrays, f"environments/actions_{i}").values()
        tree = jax.tree.structure(self.spec.actions)
        for leaves in zip(*saved, strict=True):
            action = tree.unflatten([x[()] for x in leaves])  # NumPy's scalars, where it is one
            self.timesteps[i] = env.step(copied(action))
            self.length[i] += 1
            log.append(action)
        self._asked = None


def copied(action: Action) -> Action:
    """Returns an action of its own, as an environment may change what it is given."""
    return action if isinstance(action, np.generic) else jax.tree.map(np.array, action)
