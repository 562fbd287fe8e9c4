"""Environments that are stepped together."""

from typing import Any

import dm_env
import jax
import numpy as np

from rlws import environments
from rlws.environments import rules
from rlws.environments.actions import bounded
from rlws.environments.checks import blame, check_rules, named
from rlws.environments.info import Kept, check_said, parsed
from rlws.environments.vector import VectorEnvironment
from rlws.numerics import trees
from rlws.trainers.host_environments.environments import HostEnvironments, check_actions

LAST = dm_env.StepType.LAST


class Together(HostEnvironments):
    """Environments that are stepped together."""

    def __init__(self, envs: VectorEnvironment, info: tuple[str, ...] = ()):
        super().__init__(envs.num_envs)
        self.info, self._rules = len(info), parsed(info)
        self._kept = Kept.nothing((envs.num_envs, len(info)))
        self._envs, self.spec = envs, envs.spec
        with named(f"one of the {envs.num_envs} environments, at its first reset"):
            self.timesteps = envs.reset()
        self._return = np.zeros(self.num_envs)
        self.episode, self.length = np.zeros((2, self.num_envs), np.int64)
        first = jax.tree.map(lambda x: x[None], self.timesteps)
        check_rules(rules.of_timesteps(self.spec, first), lambda t, i: self.who(i))
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
        saved = trees.restore(self.timesteps, arrays, "environments/timestep")
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
            check_actions(self, chosen)
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
        info = self._heard() if self.info else None
        self._last = last = step_type == LAST
        ends = int(last.sum())
        if ends:
            rows = returns[last], lengths[last], *([] if info is None else info[last].T)
            self.ended.extend(zip(*(x.tolist() for x in rows), strict=True))
            self.episodes += ends
        if self.episode_limit < np.inf:
            ends += int(((lengths == self.episode_limit) & ~last).sum())
        return ends

    def _heard(self):
        """Returns what is kept of the episodes, [B, k], with what was said in this step."""
        names, rules = (*self._rules,), (*self._rules.values(),)
        fresh = Kept.nothing(self._kept.value.shape)
        kept = self._kept.add(rules, self._envs.said(names))
        begun = self._last[:, None]  # the step after an end, in which an episode begins
        self._kept = Kept(*(np.where(begun, x, y) for x, y in zip(fresh, kept, strict=True)))
        if (self.timesteps.step_type == LAST).any() and not self.episodes:
            heard = dict(zip(names, (self._kept.count > 0).any(axis=0), strict=True))
            check_said(names, self._envs.info, heard)
        return self._kept.numbers(rules)
