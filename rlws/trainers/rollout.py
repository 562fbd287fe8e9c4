"""The host loop: environments and the actor, block by block, whoever learns from the blocks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np

from rlws.adders.episodes import MAX_BLOCK
from rlws.agent import Agent
from rlws.numerics import trees
from rlws.trainers import acting, initial
from rlws.trainers.acting import compile_acting
from rlws.trainers.host_environments import HostEnvironments
from rlws.trainers.row_buffer import RowBuffer
from rlws.types import Array, Params


class Ends(NamedTuple):
    """When a block ends."""

    length: int  # rows, at most
    episodes: float  # or at the first end of an episode after so many; infinite: at none

    @classmethod
    def of(cls, agent: Agent, num_envs: int) -> "Ends":
        """Returns when the adder wants to look, where it sees all environments."""
        block_length = agent.adder.schedule(num_envs).block_length
        return cls(block_length or MAX_BLOCK, agent.adder.min_ends)


class Rollout:
    """Plays in host environments and keeps what happens in a block, until that is whole.

    Attributes:
      envs: the environments.
      block: the rows since the last block.
    """

    def __init__(
        self,
        agent: Agent,
        envs: HostEnvironments,
        seed: int,
        ends: Ends,
        first: int = 0,
        workers: int = 1,
    ):
        """Begins; for the arguments, see `compile_acting`."""
        envs.episode_limit = agent.adder.episode_limit
        self._acting = compile_acting(agent, envs.spec, envs.num_envs, first, workers)
        self.envs, self._ends = envs, ends
        self._actor = initial.initial_actor_state(agent.actor, envs.num_envs)
        self.block, self._clock = self._empty(), acting.clock(seed)
        # Episodes that ended since the last batch, those of them in the last row, and whether
        # there may be a batch once the next row is there.
        self._ended, self._now, self._look = 0, 0, False

    def _empty(self) -> RowBuffer:
        envs, (_, _, timestep, row) = self.envs, self._acting
        size = self._ends.length, envs.num_envs
        return RowBuffer(row, *size, timestep.live, envs.spec, envs.begun())

    def read_params(self, params: Params) -> list[Array]:
        """Returns those of the agent's parameters that its actor reads."""
        return self._acting.params.take(params)

    def advance(self, params: list[Array], until: Callable[[], bool]) -> bool:
        """Plays at least a step, by the parameters that are read, and until the block is whole.

        Args:
          params: as `read_params` returns them.
          until: is asked after each step whether to leave the block as it is.

        Returns:
          Whether the block is whole.
        """
        envs, block, act, capacity = self.envs, self.block, self._acting.program, self._ends.length
        while True:
            seen = block.begin(envs.timesteps)
            action, self._actor, extras, self._clock = act(params, self._clock, seen, self._actor)
            self._now = envs.step(block.end(action, extras))
            self._ended += self._now
            if self._look or block.length == capacity:
                return True
            # An episode is whole once its LAST timestep has a row, which is the next.
            self._look = self._now > 0 and self._ended >= self._ends.episodes
            if until():
                return False

    def following(self) -> dm_env.TimeStep:
        """Returns the timesteps after the block, leaves [B, ...]; checks all of it.

        Raises:
          EnvironmentFault: an environment does not do what it says.
          AgentFault: nor does what acts in it.
        """
        timestep = self.block.following(self.envs.timesteps)
        self.block.check()
        return timestep

    def renew(self, learned: bool) -> None:
        """Begins the next block; `learned` says whether there was a batch after the last one."""
        self.block = self._empty()
        self._ended = self._now if learned else self._ended
        self._look = self._now > 0 and self._ended >= self._ends.episodes

    def check(self) -> None:
        """Checks what has been played of a block that is not whole; raises as `following`."""
        self.following()

    def save(self, ended: list[tuple[float, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns where it stands, as arrays and as facts; `ended` are returns and lengths."""
        rows = jax.tree.map(lambda x: x[: self.block.length], self.block.rows)
        own, facts = self.envs.save(ended)
        facts |= {"rows": int(self._clock[2]), "held": self.block.length, "now": int(self._now)}
        facts |= {"ends": int(self._ended), "look": bool(self._look)}
        facts["begun"] = [[int(n) for n in numbers] for numbers in self.block.begun]
        return {"actor": self._actor, "rows": rows, "environments": own}, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Goes on from what `save` returned, flattened."""
        self.envs.restore(arrays, facts)
        self._actor = trees.restore(self._actor, arrays, "actor")
        held = lambda x: jax.ShapeDtypeStruct((facts["held"], *x.shape[1:]), x.dtype)
        rows = jax.tree.map(held, self.block.rows)
        self.block.restore(trees.restore(rows, arrays, "rows"), facts["begun"])
        self._clock[2], self._now = facts["rows"], facts["now"]
        self._ended, self._look = facts["ends"], facts["look"]
