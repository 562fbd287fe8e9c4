"""The adder: cuts the stream of experience into the trajectories a learner asks for."""

import math
from typing import Any

from rlws.settings import Settings
from rlws.types import Array, Key, Metrics, Row, Trajectory


class Adder(Settings):
    """Pure functions of a state that lives on the device, the same in every trainer."""

    def init(self, row: Row, num_envs: int) -> Any:
        """Returns the empty state. `row` gives the shapes of one row of one environment."""
        raise NotImplementedError

    def add(self, state: Any, rows: Row, length: Array | int) -> Any:
        """Adds the first `length` steps of a block of rows (leaves [T, B, ...]).

        Adding a block is the same as adding its steps one by one; rows past `length` are padding.
        """
        raise NotImplementedError

    def ready(self, state: Any) -> Array:
        """Returns whether there is a batch to learn from (bool scalar)."""
        raise NotImplementedError

    def sample(self, state: Any, key: Key) -> tuple[Any, Trajectory]:
        """Returns the state after taking a batch, and the batch (leaves [batch, T, ...]).

        Called only when `ready`.
        """
        raise NotImplementedError

    def metrics(self, state: Any) -> Metrics:
        """Returns what to log with each update."""
        return {}

    @property
    def block_length(self) -> int | None:
        """Steps between two looks at `ready`; None: it may change with any end of an episode."""
        raise NotImplementedError

    @property
    def min_ends(self) -> float:
        """How many episodes must end between two batches, at least, where that is what counts."""
        return math.inf

    @property
    def episode_limit(self) -> float:
        """Steps at which an episode counts as ended, though it may go on."""
        return math.inf
