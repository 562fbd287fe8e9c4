"""Environments on a host in which an evaluator acts."""

import jax
import numpy as np

from rlws import environments
from rlws.environments import resolve, rules
from rlws.environments.checks import (
    EnvironmentFault,
    check_actions,
    check_first,
    check_rules,
    check_timestep,
    filled,
)
from rlws.trainers.deadline import watched
from rlws.trainers.host_environments import splitter

OWN = (
    "evaluation makes environments of its own: --evaluation.num-envs says how many there are at a "
    "time, and --evaluation.episodes 0 leaves it out"
)


class Stage:
    """Environments on a host in which an evaluator acts; what is wrong is named, as in training."""

    def __init__(self, what, environment, seed, count, timeout, stack, render=False):
        self._asked = stack.enter_context(watched(timeout))
        self._what, self._episode, self._step = what, list(range(count)), [0] * count
        self.envs, self.timesteps = [], []
        for i in range(count):
            self._asked.now = f"environment {i}, in the {what}, when it is made,", 0
            try:
                self.envs.append(resolve.host(environment, seed, i, render))
            except Exception as error:  # there may be no more of them
                error.add_note(OWN)
                raise
            stack.callback(self.envs[i].close)
        self.spec = environments.spec(self.envs[0])
        self._split = splitter(self.spec.actions, self._who)
        for i in range(count):
            self.timesteps.append(self.reset(i, i))
        self._asked.now = None

    def _who(self, i):
        place = f"episode {self._episode[i]}, step {self._step[i]}"
        return f"environment {i}, in the {self._what}, {place}"

    def reset(self, i, episode):
        """Returns the FIRST timestep of an episode, which has this number among all."""
        self._episode[i], self._step[i] = episode, 0
        self._asked.now = self._who(i), 0
        timestep = self.envs[i].reset()
        check_first(self.spec, timestep, self._who(i))
        return timestep

    def step(self, i, action):
        """Takes an action in environment i."""
        self._step[i] += 1
        self._asked.now = self._who(i), self._step[i]
        self.timesteps[i] = timestep = self.envs[i].step(action)
        check_timestep(self.spec, timestep, self._who(i))
        if timestep.first():
            raise EnvironmentFault(f"{self._who(i)}: step_type must be MID or LAST, got FIRST")

    def render(self):
        """Returns a picture of the first environment."""
        self._asked.now = self._who(0), self._step[0]
        return self.envs[0].render()

    def act(self, act, episodes, steps, state):
        """Returns an action for each environment, and the states of the actors."""
        self._asked.now = None
        batch = jax.tree.map(lambda *x: np.stack(x), *map(filled, self.timesteps))
        who, one = lambda t, i: self._who(i), lambda tree: jax.tree.map(lambda x: x[None], tree)
        check_rules(rules.of_timesteps(self.spec, one(batch)), who)
        action, state = act(episodes, steps, batch, state)
        action = jax.tree.map(np.asarray, action)
        check_actions(self.spec.actions, action, axes=1)
        check_rules(rules.of_actions(self.spec.actions, one(action)), who)
        return self._split(action), state
