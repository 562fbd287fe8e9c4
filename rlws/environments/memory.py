"""Memory: what was seen first must be remembered to the end.

A T-maze without the walking (Bakker, 2002, "Reinforcement learning with long short-term memory").
"""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments import jax_environment
from rlws.settings import PositiveInt
from rlws.types import Action, Array, EnvironmentSpec, Key, Observation


class State(NamedTuple):
    """What is to be remembered, and for how long already."""

    cue: Array  # int32 [], 0 or 1
    time: Array  # int32 [], steps taken


class Memory(jax_environment.JaxEnvironment):
    """The first observation shows a cue, 0 or 1; the action of the last step should repeat it.

    Observations are (cue as -1 or 1 at first and 0 later, whether this is the last step). Reward is
    1 for the right and -1 for the wrong answer, so whoever forgets gets 0 on average.
    """

    length: PositiveInt = 5  # steps of an episode

    def spec(self) -> EnvironmentSpec:
        """Returns the specs; observations float32 [2], actions 0 and 1."""
        return EnvironmentSpec(
            observations=specs.BoundedArray((2,), np.float32, -1, 1, "observation"),
            actions=specs.DiscreteArray(2, name="action"),
            max_episode_steps=self.length,
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode with either cue."""
        state = State(jax.random.bernoulli(key).astype(jnp.int32), jnp.int32(0))
        return state, jax_environment.first(self._observation(state))

    def step(self, state: State, action: Action) -> tuple[State, dm_env.TimeStep]:
        """Lets time go by, and rewards the answer at the end."""
        done = state.time + 1 >= self.length
        reward = jnp.where(done, jnp.where(action == state.cue, 1.0, -1.0), 0.0)
        state = State(state.cue, state.time + 1)
        return state, jax_environment.following(self._observation(state), reward, done, False)

    def _observation(self, state: State) -> Observation:
        cue = jnp.where(state.time == 0, 2.0 * state.cue - 1.0, 0.0)
        last = (state.time == self.length - 1).astype(jnp.float32)
        return jnp.stack([cue, last]).astype(jnp.float32)
