"""What the host does with a block of rows: add it and learn, compiled, maybe in another thread."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from rlws.agent import Agent
from rlws.numerics import checkpoint, streams
from rlws.numerics.memo import remembered_of
from rlws.numerics.streams import Stream
from rlws.trainers import core
from rlws.trainers.sharding import over_devices
from rlws.types import EnvironmentSpec, Params, Row

# Memory of its own: what is donated must not be that of arrays somebody else has.
copied = jax.jit(partial(jax.tree.map, jnp.copy))


class Programs(NamedTuple):
    """The compiled functions; whatever they are given first is donated."""

    init: Any  # seed -> state
    add: Any  # adder state, rows, length, timestep -> adder state, whether there is a batch
    learn: Any  # state, key -> state
    consume: Any  # state, key, rows, length, timestep -> state, learned if there was a batch


@remembered_of
def compile_learning(agent: Agent, spec: EnvironmentSpec, num_envs: int) -> Programs:
    """Returns the programs by which `agent` learns from blocks of `num_envs` environments."""
    updates = agent.adder.schedule(num_envs).updates

    def add(adder, rows, length, timestep):
        adder = agent.adder.add(adder, rows, length, timestep)
        return adder, agent.adder.ready(adder)

    def learn(state, key):
        return core.learn(agent, state, key, updates)

    def consume(state, key, *block):
        adder, ready = add(state.adder, *block)
        state = state._replace(adder=adder)
        return jax.lax.cond(ready, learn, lambda s, _: s, state, key)

    init = jax.jit(lambda seed: core.init(agent, spec, seed, num_envs))
    return Programs(init, *(jax.jit(f, donate_argnums=0) for f in (add, learn, consume)))


class Learning:
    """The state of an agent in training, updated in place.

    With `overlap`, `take` returns at once and the block before is what `params` have learned from.

    Attributes:
      params: to act by.
      halted: whether an update came to NaN, or `max_updates` is reached.
    """

    def __init__(
        self,
        agent: Agent,
        spec: EnvironmentSpec,
        seed: int,
        num_envs: int,
        overlap: bool = False,
        saved: Mapping[str, np.ndarray] | None = None,
        max_updates: int | None = None,
        num_devices: int = 1,
    ):
        self._programs = programs = compile_learning(agent, spec, num_envs)
        self._key, self._most = streams.key(seed, Stream.LEARN), max_updates
        # Where there is a batch with almost every block, one dispatch; else the learner's many
        # arrays stay out of it until there is.
        self._together = agent.adder.schedule(num_envs).block_length is not None
        if saved is None:
            self._state = programs.init(seed)
        else:
            shapes = jax.eval_shape(programs.init, seed)
            self._state = copied(checkpoint.restore(shapes, saved, "state"))
        self._thread = ThreadPoolExecutor(1) if overlap else None
        self._pending: Future | None = None
        self._learned = False  # since `params` were last set
        self.params: Params = self._acting_params()
        self._split, whole = over_devices(num_devices)
        self._state, self.halted = whole(self._state), False
        if saved is not None and overlap:
            self.params = checkpoint.restore(self.params, saved, "acting")
            self._learned = bool(saved["learned"])

    def take(self, rows: Row, length: int, timestep: dm_env.TimeStep) -> bool:
        """Adds `length` rows of a block, followed by `timestep`; learns if there is a batch.

        Returns:
          Whether `params` are no longer those before.
        """
        block = self._split(rows, 1), length, self._split(timestep, 0)
        if self._thread is None:
            self._state, learned = self._take(self._state, *block)
            self.params = self._state.learner.params
            self.halted = learned and bool(self._state.halted)
            return learned
        self._finish()
        learned, self._learned = self._learned, False
        self.params = self._acting_params()
        self._pending = self._thread.submit(self._take, self._state, *block)
        return learned

    def _take(self, state: core.State, *block: Any) -> tuple[core.State, bool]:
        """Returns the state after a block, and whether its arrays are new ones."""
        halts = self._most is not None and state.learner.updates >= self._most
        if self._together and not halts:
            return self._programs.consume(state, self._key, *block), True
        adder, ready = self._programs.add(state.adder, *block)
        state = state._replace(adder=adder)
        if halts:
            return state._replace(halted=ready), True
        learned = bool(ready)
        return (self._programs.learn(state, self._key) if learned else state), learned

    def state(self) -> core.State:
        """Returns the state, once what was taken is learned."""
        self._finish()
        return self._state

    def learned(self) -> dict[str, Any]:
        """Returns all that was learned as a tree of arrays, to be saved."""
        state = self.state()
        if not self._thread:
            return {"state": state}
        return {"state": state, "acting": self.params, "learned": np.bool_(self._learned)}

    def read(self) -> tuple[core.State, dict[str, float]]:
        """Returns the state and the means of the metrics since the last call."""
        self._state, metrics = core.read_totals(self.state())
        return self._state, metrics

    def _finish(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._state, self._learned = pending.result()
            self.halted = bool(self._state.halted)

    def _acting_params(self) -> Params:
        # Learning overwrites its own while others act by them.
        params = self._state.learner.params
        return copied(params) if self._thread else params

    def close(self) -> None:
        """Ends the thread, if there is one."""
        if self._thread:
            self._thread.shutdown()
