"""What a host does between two reports; here, block by block."""

from collections.abc import Callable
from typing import Any

from rlws.agent import Agent
from rlws.trainers import core
from rlws.trainers.learning import Learning
from rlws.trainers.players import Players
from rlws.trainers.rollout import Ends, Rollout
from rlws.trainers.trainer import Snapshot


class Turns:
    """Plays and learns."""

    @property
    def halted(self) -> bool:
        """Whether an update came to NaN, or `max_updates` is reached."""
        raise NotImplementedError

    def advance(self, due: Callable[[], bool]) -> bool:
        """Plays at least a step; returns whether there is something to look at, as `due` says."""
        raise NotImplementedError

    def check(self) -> None:
        """Checks what has been played, as `Block.check` does, as far as that was not done yet."""

    def state(self) -> core.State:
        """Returns the state of the agent."""
        raise NotImplementedError

    def read(self) -> tuple[core.State, dict[str, float]]:
        """Returns the state and the means of the metrics since the last call."""
        raise NotImplementedError

    def save(self, ended: list[tuple[float, int]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns all that decides how it goes on, arrays and facts; `ended` are returns, lengths.

        It is the same whoever plays.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Ends threads, if there are any."""


class InBlocks(Turns):
    """Plays a block, then learns from it if there is a batch."""

    def __init__(
        self,
        agent: Agent,
        play: Players,
        seed: int,
        overlap: bool,
        resume: Snapshot | None,
        max_updates: int | None,
    ):
        arrays, facts = (None, {}) if resume is None else resume
        self._play = play
        self._learning = Learning(
            agent, play.spec, seed, play.num_envs, overlap, arrays, max_updates
        )
        ends = Ends.of(agent, play.num_envs)
        self._rollout = Rollout(agent, play, self._learning.params, seed, ends)
        self._params = self._rollout.read(self._learning.params)
        if arrays is not None:
            self._rollout.restore(arrays, facts)

    @property
    def halted(self):
        return self._learning.halted

    def advance(self, due):
        learning, rollout = self._learning, self._rollout
        if not rollout.advance(self._params, due):
            return True
        learned = learning.take(rollout.block.rows, rollout.block.length, rollout.following())
        if learned:
            self._params = rollout.read(learning.params)
        rollout.renew(learned)
        return self.halted or due()

    def check(self):
        self._rollout.block.begin(self._play.timesteps)
        self._rollout.block.check()

    def state(self):
        return self._learning.save()["state"]

    def read(self):
        return self._learning.read()

    def save(self, ended):
        own, facts = self._rollout.save(ended)
        return {**self._learning.save(), **own}, facts

    def close(self):
        self._learning.__exit__()
