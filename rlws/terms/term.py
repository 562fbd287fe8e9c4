"""What a term is: a loss, a change of the batch, or both, beside any learner's own."""

from typing import Any, ClassVar

from rlws.settings import Settings
from rlws.types import Array, Key, Metrics, Params, Trajectory


class Term(Settings):
    """Adds to a learner: `learner.with_terms(L2Init(), RND(spec))`.

    A term may bring parameters, which the learner's optimiser improves, and a state of its own.
    """

    name: ClassVar[str]  # of its loss among the metrics

    def init(self, key: Key, params: Params) -> tuple[dict[str, Any], Any]:
        """Returns entries to add to the learner's parameters, and the term's state."""
        return {}, ()

    def prepare(
        self, params: Params, state: Any, batch: Trajectory
    ) -> tuple[Trajectory, dict[str, Any], Any]:
        """Changes a batch (leaves [B, T, ...], blanked where weightless) before the update.

        Returns:
          The batch for the update and the terms that follow; then what holds after it: parameter
          entries that are none of the optimiser's business, such as statistics, and the state.
        """
        return batch, {}, state

    def loss(
        self, params: Params, trajectory: Trajectory, key: Key, state: Any
    ) -> tuple[Array | float, Metrics]:
        """Returns what to add to the loss of one trajectory, and metrics, as `Learner.loss` does.

        An update that learns from single steps passes trajectories without their last observation.
        """
        return 0.0, {}
