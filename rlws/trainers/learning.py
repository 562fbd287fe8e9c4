"""What the host does with a block of rows: add it and learn, compiled, maybe in another thread."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.numerics import checkpoint, streams
from rlws.numerics.streams import Stream
from rlws.trainers import core
from rlws.trainers.sharding import over_devices
from rlws.types import EnvironmentSpec, Params, Row


class Learning:
    """The state of an agent in training, updated in place.

    With `overlap`, `take` returns at once and the block before is what `params` have learned from.
    """

    def __init__(
        self,
        agent: Agent,
        spec: EnvironmentSpec,
        seed: int,
        num_envs: int,
        overlap: bool,
        saved: Mapping[str, np.ndarray] | None = None,
        max_updates: int | None = None,
        num_devices: int = 1,
    ):
        block_length, updates = agent.adder.schedule(num_envs)
        key = streams.key(seed, Stream.LEARN)

        def add(adder, rows, length, timestep):
            adder = agent.adder.add(adder, rows, length, timestep)
            return adder, agent.adder.ready(adder)

        def learn(state):
            return core.learn(agent, state, key, updates)

        def consume(state, rows, length, timestep):
            adder, ready = add(state.adder, rows, length, timestep)
            state = state._replace(adder=adder)
            return jax.lax.cond(ready, learn, lambda s: s, state)

        self._add, self._learn = jax.jit(add, donate_argnums=0), jax.jit(learn, donate_argnums=0)
        self._consume = jax.jit(consume, donate_argnums=0)
        # Where there is a batch with almost every block, one dispatch; else the learner's many
        # arrays stay out of it until there is.
        self._take = self._apart if block_length is None else self._together
        self._initial = jax.jit(partial(core.init, agent, spec, seed, num_envs))
        self._state = self._initial() if saved is None else self._restored(saved)
        self._thread = ThreadPoolExecutor(1) if overlap else None
        self._copy = jax.jit(partial(jax.tree.map, jnp.copy))
        self._pending: Future | None = None
        self._learned = False  # since `params` were last set
        self.params: Params = self._acting_params()
        self._split, whole = over_devices(num_devices)
        self._state = whole(self._state)
        self.halted = False  # whether an update came to NaN, or `max_updates` is reached
        if max_updates is not None:
            self._take = partial(self._up_to, max_updates, self._take)
        if saved is not None and overlap:
            self.params = checkpoint.restore(self.params, saved, "acting")
            self._learned = bool(saved["learned"])

    def take(self, rows: Row, length: int, timestep: dm_env.TimeStep) -> bool:
        """Adds `length` rows of a block, followed by `timestep`; learns if there is a batch.

        Returns:
          Whether `params` are no longer those before.
        """
        arguments = self._split(rows, 1), length, self._split(timestep, 0)
        if self._thread is None:
            self._state, learned = self._take(self._state, *arguments)
            self.params = self._state.learner.params
            self.halted = learned and bool(self._state.halted)
            return learned
        self._finish()
        learned, self._learned = self._learned, False
        self.params = self._acting_params()
        self._pending = self._thread.submit(self._take, self._state, *arguments)
        return learned

    def save(self) -> dict[str, Any]:
        """Returns the state as a tree of arrays, and what acts where that is another."""
        self._finish()
        own = {"acting": self.params, "learned": np.bool_(self._learned)} if self._thread else {}
        return {"state": self._state, **own}

    def read(self) -> tuple[core.State, dict[str, float]]:
        """Returns the state and the means of the metrics since the last call."""
        self._finish()
        self._state, metrics = core.read_totals(self._state)
        return self._state, metrics

    def _apart(self, state, *arguments):
        adder, ready = self._add(state.adder, *arguments)
        state = state._replace(adder=adder)
        learned = bool(ready)
        return (self._learn(state) if learned else state), learned

    def _together(self, state, *arguments):
        return self._consume(state, *arguments), True  # if not learned, all arrays are new ones

    def _up_to(self, max_updates, take, state, *arguments):
        if state.learner.updates < max_updates:
            return take(state, *arguments)
        adder, ready = self._add(state.adder, *arguments)
        return state._replace(adder=adder, halted=ready), True

    def _finish(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._state, self._learned = pending.result()
            self.halted = bool(self._state.halted)

    def _restored(self, saved):
        state = checkpoint.restore(jax.eval_shape(self._initial), saved, "state")
        # Memory of its own: what is donated must not be that of the arrays that were read.
        return jax.jit(partial(jax.tree.map, jnp.copy))(state)

    def _acting_params(self) -> Params:
        # Learning overwrites its own while others act by them.
        params = self._state.learner.params
        return self._copy(params) if self._thread else params

    def __enter__(self) -> "Learning":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._thread.shutdown()
