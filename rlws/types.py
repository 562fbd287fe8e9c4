"""The experience that flows through the framework: dm_env rows in, trajectories out.

A stream of experience has one row per step and environment. Row t holds the timestep the actor saw,
the action it answered with and whatever it recorded; the step after a LAST timestep restarts the
episode and ignores its action. So the true final observation of each episode has a row of its own.
"""

from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

# Computing in the calling thread halves the time of a small policy call on a CPU. It must be set
# before JAX first computes, so in the module that all others import.
jax.config.update("jax_cpu_enable_async_dispatch", False)

Array = jax.Array
Key = jax.Array  # a PRNG key
Params = Any  # a pytree of arrays
Observation = Any  # an array or a nest of arrays
Action = Any
Metrics = dict[str, Array]  # scalars

ACTION_MASK = "action_mask"  # entry of an observation: which discrete actions are legal now


class EnvironmentSpec(NamedTuple):
    """What an agent may know of its environment; specs may be nested."""

    observations: Any
    actions: Any
    rewards: specs.Array = specs.Array((), np.float32, "reward")
    discounts: specs.BoundedArray = specs.BoundedArray((), np.float32, 0, 1, "discount")
    max_episode_steps: int | None = None  # the time limit, where there is one

    def zero_observation(self) -> Observation:
        """Returns an observation of zeros, of the types JAX computes with."""
        zeros = lambda s: jnp.zeros(s.shape, jax.dtypes.canonicalize_dtype(s.dtype))
        return jax.tree.map(zeros, self.observations)


class Row(NamedTuple):
    """One step of experience; leading axes are [T, B] in a block, T steps of B environments.

    On FIRST, `timestep.reward` is 0 and `timestep.discount` is 1 (dm_env says None, which no array
    can hold); on LAST, `action` is ignored.
    """

    timestep: dm_env.TimeStep
    action: Action
    extras: Any = ()


class Trajectory(NamedTuple):
    """T consecutive steps of one environment: the one item every learner gets.

    Step t leads from `observation[t]` by `action[t]` to `observation[t + 1]`, with reward r_{t+1}.
    A trajectory may span episodes; the step from a LAST to the FIRST row after it has weight 0.
    """

    observation: Observation  # [T + 1, ...]
    action: Action  # [T, ...]
    reward: Array  # [T], r_{t+1}
    discount: Array  # [T], the environment's: 0 where step t terminates, 1 where truncated
    weight: Array  # [T], 0 for steps that are not experience; importance weights multiply it
    first: Array  # [T + 1] bool, observation t begins an episode
    last: Array  # [T] bool, step t ends an episode, by termination or truncation
    extras: Any = ()  # [T, ...], what the actor recorded

    @classmethod
    def from_rows(cls, rows: Row, weight: Array | float = 1.0) -> "Trajectory":
        """Returns the trajectory of T + 1 consecutive rows of one environment, [T + 1, ...]."""
        head = lambda x: x[:-1]
        action, extras = jax.tree.map(head, (rows.action, rows.extras))
        return cls.from_steps(rows.timestep, action, extras, weight)

    @classmethod
    def from_steps(
        cls, timestep: dm_env.TimeStep, action: Action, extras: Any, weight: Array | float = 1.0
    ) -> "Trajectory":
        """Returns the trajectory of T + 1 consecutive timesteps with T actions and extras."""
        step_type = timestep.step_type
        return cls(
            observation=timestep.observation,
            action=action,
            reward=timestep.reward[1:],
            discount=timestep.discount[1:],
            weight=weight * (step_type[:-1] != dm_env.StepType.LAST),
            first=step_type == dm_env.StepType.FIRST,
            last=step_type[1:] == dm_env.StepType.LAST,
            extras=extras,
        )

    def trace(self, lambda_: float = 1.0) -> Array:
        """Returns lambda [T] cut at episode ends: no return computed with it leaks across one."""
        return lambda_ * (1.0 - self.last)

    def without_final(self) -> "Trajectory":
        """Returns the trajectory with the observations acted on only, [T, ...]."""
        observation = jax.tree.map(lambda x: x[:-1], self.observation)
        return self._replace(observation=observation, first=self.first[:-1])

    def masked(self) -> "Trajectory":
        """Returns one trajectory, or a batch, without what lies where no step of weight looks.

        There the trajectory's first step of weight is repeated (or, where it has none, that of the
        first trajectory that has one), with reward 0. So padding cannot reach a loss or, through
        0 * NaN, its gradient, not even of a network undefined at an observation of 0.
        """
        step = self.weight > 0
        never = jnp.zeros_like(step[..., :1])
        join = lambda *x: jnp.concatenate(x, axis=-1)
        seen = join(step, never) | join(never, step)
        some = step.any(axis=-1)
        source = jnp.where(some, jnp.arange(some.size).reshape(some.shape), jnp.argmax(some))
        at = source, jnp.argmax(step, axis=-1).ravel()[source]

        def choose(where, x, other):
            return jnp.where(where.reshape(where.shape + (1,) * (x.ndim - step.ndim)), x, other)

        blank = lambda x: choose(step, x, jnp.zeros_like(x))

        def first(x):
            found = jnp.expand_dims(x.reshape(-1, *x.shape[some.ndim :])[at], some.ndim)
            # Where nothing has weight, not even the first step is sound.
            return jnp.where(some.any(), found, jnp.zeros_like(found))

        fill = lambda where: lambda x: choose(where, x, first(x))
        return self._replace(
            observation=jax.tree.map(fill(seen), self.observation),
            action=jax.tree.map(fill(step), self.action),
            reward=blank(self.reward),
            discount=blank(self.discount),
            extras=jax.tree.map(fill(step), self.extras),
        )
