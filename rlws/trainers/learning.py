"""What the host does with a block of rows: add it and learn, compiled."""

from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from rlws.agent import Agent
from rlws.numerics import counts, streams, trees
from rlws.numerics.memo import remembered_of
from rlws.numerics.streams import Stream
from rlws.trainers import core, initial
from rlws.trainers.sharding import over_devices
from rlws.trainers.trainer import Control
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
        adder = core.add(agent.adder, adder, rows, length, timestep)
        return adder, agent.adder.ready(adder)

    def learn(state, key):
        return core.learn(agent, state, key, updates)

    def consume(state, key, *block):
        adder, ready = add(state.adder, *block)
        state = state._replace(adder=adder)
        return jax.lax.cond(ready, learn, lambda s, _: s, state, key)

    init = jax.jit(lambda seed: initial.init(agent, spec, seed, num_envs))
    return Programs(init, *(jax.jit(f, donate_argnums=0) for f in (add, learn, consume)))


class Learning:
    """The state of an agent in training, updated in place.

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
        control: Control,
        num_devices: int = 1,
    ):
        self._programs = programs = compile_learning(agent, spec, num_envs)
        self._key, most = streams.key(seed, Stream.LEARN), control.max_updates
        self._most = None if most is None else counts.wrapped(most)
        # Where there is a batch with almost every block, one dispatch; else the learner's many
        # arrays stay out of it until there is.
        self._together = agent.adder.schedule(num_envs).block_length is not None
        if control.resume is None:
            state = programs.init(seed)
        else:
            shapes = jax.eval_shape(programs.init, seed)
            state = copied(trees.restore(shapes, control.resume.arrays, "state"))
        self._split, whole = over_devices(num_devices)
        self._state, self.halted = whole(state), False
        self.params: Params = self._state.learner.params

    def take(self, rows: Row, length: int, timestep: dm_env.TimeStep) -> bool:
        """Adds `length` rows of a block, followed by `timestep`; learns if there is a batch.

        Returns:
          Whether `params` are no longer those before.
        """
        block = self._split(rows, 1), length, self._split(timestep, 0)
        self._state, learned = self._take(self._state, *block)
        self.params = self._state.learner.params
        self.halted = learned and bool(self._state.halted)
        return learned

    def _take(self, state: core.State, *block: Any) -> tuple[core.State, bool]:
        """Returns the state after a block, and whether its arrays are new ones."""
        halts = self._most is not None and counts.at_least(state.learner.updates, self._most)
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
        return self._state

    def learned(self) -> dict[str, Any]:
        """Returns all that was learned as a tree of arrays, to be saved."""
        return {"state": self.state()}

    def read(self) -> tuple[core.State, dict[str, float]]:
        """Returns the state and the means of the metrics since the last call."""
        state = self.state()
        self._state = state._replace(totals=state.totals.zero())
        return self._state, state.totals.means()

    def close(self) -> None:
        """Ends what runs beside, if anything does."""
