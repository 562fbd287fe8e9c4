"""The learner's metrics, summed where they are until somebody reads them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlws.types import Array, Metrics


class Totals(NamedTuple):
    """The learner's metrics since they were last read."""

    metrics: Metrics  # sums over updates
    updates: Array

    def add(self, metrics: Metrics) -> "Totals":
        """Returns the totals with those of one more update."""
        return Totals(jax.tree.map(jnp.add, self.metrics, metrics), self.updates + 1)

    def zero(self) -> "Totals":
        """Returns the totals of nothing."""
        return jax.tree.map(jnp.zeros_like, self)

    def means(self) -> dict[str, float]:
        """Returns the mean of each metric over the updates, none where there was no update."""
        metrics, updates = jax.device_get(self)
        return {name: float(value) / int(updates) for name, value in metrics.items() if updates}


def decisive(metrics: Metrics) -> Metrics:
    """Returns those that must be finite: losses, and norms of gradients and steps.

    Other metrics may be infinite.
    """
    return {name: x for name, x in metrics.items() if name.endswith(("loss", "_norm"))}


def finite(metrics: Metrics) -> Array:
    """Returns whether those are."""
    numbers = [*decisive(metrics).values()]
    return jnp.isfinite(jnp.stack(numbers)).all() if numbers else jnp.bool_(True)
