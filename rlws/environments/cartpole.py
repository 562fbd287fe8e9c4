"""CartPole (Barto, Sutton and Anderson, 1983): balance a pole on a cart, as in gymnasium.

https://gymnasium.farama.org/environments/classic_control/cart_pole
"""

import functools
import math
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments import jax_environment
from rlws.settings import PositiveInt
from rlws.types import Action, Array, EnvironmentSpec, Key

_GRAVITY = 9.8  # m / s^2
_POLE_MASS, _TOTAL_MASS = 0.1, 1.1  # kg
_POLE_HALF_LENGTH = 0.5  # m
_FORCE = 10.0  # N
_TIMESTEP = 0.02  # s
_X_LIMIT = 2.4  # m
_ANGLE_LIMIT = math.radians(12)


class State(NamedTuple):
    """A cart and its pole."""

    physics: Array  # float32 [4]: x (m), its speed, angle from upright (rad), its speed
    time: Array  # int32 [], steps taken


class CartPole(jax_environment.JaxEnvironment):
    """gymnasium's CartPole-v1: reward 1 a step, the one on which the pole falls included.

    Actions push the cart left (0) or right (1); the observation is the state's `physics`.
    """

    frames_per_second = 50

    max_episode_steps: PositiveInt = 500

    def spec(self) -> EnvironmentSpec:
        """Returns the specs; observations float32 [4], actions 0 and 1."""
        # Twice the limits, so that the observation of a fallen pole is still within bounds.
        high = np.array([2 * _X_LIMIT, np.inf, 2 * _ANGLE_LIMIT, np.inf], np.float32)
        return EnvironmentSpec(
            observations=specs.BoundedArray((4,), np.float32, -high, high, "observation"),
            actions=specs.DiscreteArray(2, name="action"),
            max_episode_steps=self.max_episode_steps,
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode with all of `physics` uniform in (-0.05, 0.05)."""
        physics = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return State(physics, jnp.int32(0)), jax_environment.first(physics)

    def step(self, state: State, action: Action) -> tuple[State, dm_env.TimeStep]:
        """Pushes the cart for 0.02 s."""
        # Scalars in, one stack out: of the layouts tried, the one XLA:CPU scans fastest in batches.
        x, x_speed, angle, angle_speed = (state.physics[i] for i in range(4))
        x_acceleration, angle_acceleration = _accelerations(angle, angle_speed, action)
        # Explicit Euler: positions move by the speeds before the step.
        x += _TIMESTEP * x_speed
        angle += _TIMESTEP * angle_speed
        x_speed += _TIMESTEP * x_acceleration
        angle_speed += _TIMESTEP * angle_acceleration
        physics, time = jnp.stack([x, x_speed, angle, angle_speed]), state.time + 1
        fallen = (jnp.abs(x) > _X_LIMIT) | (jnp.abs(angle) > _ANGLE_LIMIT)
        late = time >= self.max_episode_steps
        return State(physics, time), jax_environment.following(physics, 1.0, fallen, late)

    def render(self, state: State) -> np.ndarray:
        """Returns gymnasium's picture of the state, uint8 [400, 600, 3]."""
        renderer = _renderer()
        renderer.state = np.asarray(state.physics)
        return renderer.render()


def _accelerations(angle: Array, angle_speed: Array, action: Action) -> tuple[Array, Array]:
    """Returns the accelerations of the cart, m / s^2, and of the pole, rad / s^2."""
    force = jnp.where(action == 1, _FORCE, -_FORCE)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    moment = _POLE_MASS * _POLE_HALF_LENGTH
    push = (force + moment * jnp.square(angle_speed) * sine) / _TOTAL_MASS
    inertia = _POLE_HALF_LENGTH * (4 / 3 - _POLE_MASS * jnp.square(cosine) / _TOTAL_MASS)
    pole = (_GRAVITY * sine - cosine * push) / inertia
    return push - moment * pole * cosine / _TOTAL_MASS, pole


@functools.cache
def _renderer() -> Any:
    import gymnasium  # only pictures need it

    return gymnasium.make("CartPole-v1", render_mode="rgb_array").unwrapped
