"""The adder: cuts the stream of experience into the trajectories a learner asks for."""

import math
from typing import Any, ClassVar, NamedTuple

import dm_env

from rlws.settings import Settings
from rlws.types import Array, Key, Metrics, Row, Trajectory


class Schedule(NamedTuple):
    """When an adder of so many environments wants to be fed and asked."""

    block_length: int | None  # steps between two looks at `ready`; None: any end of an episode
    updates: int = 1  # of the learner whenever there is a batch, each with a batch of its own


class Adder(Settings):
    """Pure functions of a state that lives on the device, the same in every trainer."""

    # Whether each block makes a batch by itself, whatever environments it comes from.
    independent: ClassVar[bool] = False

    def init(self, row: Row, num_envs: int) -> Any:
        """Returns the empty state. `row` gives the shapes of one row of one environment."""
        raise NotImplementedError

    def add(self, state: Any, rows: Row, length: Array | int, timestep: dm_env.TimeStep) -> Any:
        """Adds the first `length` steps of a block of rows.

        Args:
          state: of the adder.
          rows: leaves [T, B, ...]; what lies beyond `length` is padding.
          length: where the schedule has a block length, that or 0 (nothing is added).
          timestep: to which the last step led (leaves [B, ...]): the next row, not acted on yet.
        """
        raise NotImplementedError

    def ready(self, state: Any) -> Array:
        """Returns whether there is a batch to learn from (bool scalar)."""
        raise NotImplementedError

    def sample(self, state: Any, key: Key) -> tuple[Any, Trajectory]:
        """Returns the state after taking a batch, and the batch (leaves [batch, T, ...]).

        Called only when `ready`, and then as often as the schedule has updates.
        """
        raise NotImplementedError

    def feedback(self, state: Any, priority: Array) -> Any:
        """Takes what the learner says of each trajectory of the last batch, its `priority`."""
        return state

    def metrics(self, state: Any) -> Metrics:
        """Returns what to log with each update."""
        return {}

    def schedule(self, num_envs: int) -> Schedule:
        """Returns when to feed and ask this adder.

        Raises:
          SettingError: its settings cannot be kept with so many environments.
        """
        raise NotImplementedError

    def kept(self, num_envs: int) -> int | None:
        """Returns how many rows back of the stream a batch may reach; None: nobody knows."""
        return None

    @property
    def min_ends(self) -> float:
        """How many episodes must end between two batches, at least, where that is what counts."""
        return math.inf

    @property
    def episode_limit(self) -> float:
        """Steps at which an episode counts as ended, though it may go on."""
        return math.inf
