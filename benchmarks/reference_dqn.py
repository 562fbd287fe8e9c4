"""DQN as one would write it by hand for one environment: a ring in NumPy, a jitted act and update.

What `agents_zoo/dqn.py` is, without double Q-learning, and nothing around it: no checks, no rows,
no counters, no checkpoints.
"""

from typing import Any, NamedTuple

import gymnasium
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

DISCOUNT, EPSILON, ANNEALING, TARGET = 0.99, 0.05, 10_000, 500


class Settings(NamedTuple):
    """What the workloads of `benchmarks.peers` set."""

    hidden: tuple[int, ...] = (64, 64)
    batch: int = 128
    capacity: int = 10_000
    starts: int = 1_000  # steps before the first update
    period: int = 1  # steps between turns of learning
    updates: int = 1  # in a turn


class DQN:
    """The agent, its environment and all of its state."""

    def __init__(self, settings: Settings, seed: int = 0):
        self.settings, self.steps, self.updates = settings, 0, 0
        self._env = gymnasium.make("CartPole-v1", disable_env_checker=True)
        self._observation, _ = self._env.reset(seed=seed)
        self._random = np.random.default_rng(seed)
        network = hk.without_apply_rng(
            hk.transform(lambda x: hk.nets.MLP((*settings.hidden, 2))(x))
        )
        optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(2.5e-4))
        self._params = network.init(jax.random.key(seed), jnp.zeros(4))
        self._target, self._opt_state = self._params, optimizer.init(self._params)
        size = settings.capacity
        self._ring = (
            np.zeros((size, 4), np.float32),
            np.zeros(size, np.int32),
            np.zeros(size, np.float32),
            np.zeros(size, np.float32),
            np.zeros((size, 4), np.float32),
        )

        def loss(params, target, observation, action, reward, discount, following):
            q = jnp.take_along_axis(network.apply(params, observation), action[:, None], 1)[:, 0]
            goal = reward + DISCOUNT * discount * network.apply(target, following).max(-1)
            return 0.5 * jnp.mean((goal - q) ** 2)

        def update(params, opt_state, target, *batch):
            gradient = jax.grad(loss)(params, target, *batch)
            changes, opt_state = optimizer.update(gradient, opt_state, params)
            return optax.apply_updates(params, changes), opt_state

        self._update = jax.jit(update, donate_argnums=1)
        self._act = jax.jit(lambda params, x: network.apply(params, x).argmax())

    def run(self, steps: int) -> None:
        """Takes so many steps of the environment, and the updates that are due."""
        settings, ring, draw = self.settings, self._ring, self._random
        for _ in range(steps):
            epsilon = max(EPSILON, 1 - (1 - EPSILON) * self.steps / ANNEALING)
            explores = draw.random() < epsilon
            action = (
                draw.integers(2) if explores else int(self._act(self._params, self._observation))
            )
            following, reward, ended, cut, _ = self._env.step(action)
            seen = self._observation, action, reward, 1.0 - ended, following
            for array, value in zip(ring, seen, strict=True):
                array[self.steps % settings.capacity] = value
            self._observation = self._env.reset()[0] if ended or cut else following
            self.steps += 1
            if self.steps >= settings.starts and self.steps % settings.period == 0:
                for _ in range(settings.updates):
                    self._learn()

    def _learn(self) -> None:
        filled = min(self.steps, self.settings.capacity)
        rows = self._random.integers(filled, size=self.settings.batch)
        batch: Any = [array[rows] for array in self._ring]
        self._params, self._opt_state = self._update(
            self._params, self._opt_state, self._target, *batch
        )
        self.updates += 1
        if self.updates % TARGET == 0:
            self._target = self._params
