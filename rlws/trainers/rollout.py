"""The host loop: environments and the actor, block by block, whoever learns from the blocks."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np

from rlws.adders.episodes import MAX_BLOCK
from rlws.agent import Agent
from rlws.numerics import checkpoint, streams
from rlws.numerics.streams import Stream
from rlws.trainers import core
from rlws.trainers.acting import compile_acting
from rlws.trainers.block import Block
from rlws.trainers.players import Players
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
      play: the environments.
      block: the rows since the last block.
      step: rows so far.
    """

    def __init__(
        self,
        agent: Agent,
        play: Players,
        params: Params,
        seed: int,
        ends: Ends,
        first: int = 0,
        workers: int = 1,
    ):
        """Begins; of `params` only the shapes matter. For the rest, see `compile_acting`."""
        play.episode_limit = agent.adder.episode_limit
        example = jax.device_get(core.example_row(agent, play.spec, params))
        key = streams.key(seed, Stream.ACT)
        acting = compile_acting(agent, params, example, play.num_envs, key, first, workers)
        self.play, self._act, self.read = play, acting.program, acting.params.take
        self._ends, self._actor = ends, core.initial_actor_state(agent.actor, play.num_envs)
        self._block = partial(
            Block, example, ends.length, play.num_envs, acting.timestep.live, play.spec
        )
        self.block, self.step = self._block(play.begun()), np.uint32(0)
        # Episodes that ended since the last batch, those of them in the last row, and whether
        # there may be a batch once the next row is there.
        self._ended, self._now, self._look = 0, 0, False

    def advance(self, params: list[Array], until: Callable[[], bool]) -> bool:
        """Plays at least a step, by the parameters that are read, and until the block is whole.

        Args:
          params: as `read` returns them.
          until: is asked after each step whether to leave the block as it is.

        Returns:
          Whether the block is whole.
        """
        play, block, act, capacity = self.play, self.block, self._act, self._ends.length
        while True:
            seen = block.begin(play.timesteps)
            action, self._actor, extras, self.step = act(params, self.step, seen, self._actor)
            self._now = play.step(block.end(action, extras))
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
        timestep = self.block.following(self.play.timesteps)
        self.block.check()
        return timestep

    def renew(self, learned: bool) -> None:
        """Begins the next block; `learned` says whether there was a batch after the last one."""
        self.block = self._block(self.play.begun())
        self._ended = self._now if learned else self._ended
        self._look = self._now > 0 and self._ended >= self._ends.episodes

    def save(self, ended: list[tuple[float, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns where it stands, as arrays and as facts; `ended` are returns and lengths."""
        rows = jax.tree.map(lambda x: x[: self.block.length], self.block.rows)
        own, facts = self.play.save(ended)
        facts |= {"rows": int(self.step), "held": self.block.length, "now": int(self._now)}
        facts |= {"ends": int(self._ended), "look": bool(self._look)}
        facts["begun"] = [[int(n) for n in numbers] for numbers in self.block.begun]
        return {"actor": self._actor, "rows": rows, "environments": own}, facts

    def restore(self, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Goes on from what `save` returned, flattened."""
        self.play.restore(arrays, facts)
        self._actor = checkpoint.restore(self._actor, arrays, "actor")
        held = lambda x: jax.ShapeDtypeStruct((facts["held"], *x.shape[1:]), x.dtype)
        rows = jax.tree.map(held, self.block.rows)
        self.block.restore(checkpoint.restore(rows, arrays, "rows"), facts["begun"])
        self.step, self._now = np.uint32(facts["rows"]), facts["now"]
        self._ended, self._look = facts["ends"], facts["look"]
