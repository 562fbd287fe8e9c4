"""L2-init: keeps parameters near where they began, against the loss of plasticity.

Kumar, Marklund and Van Roy, 2023, "Maintaining plasticity in continual learning via regenerative
regularization". https://arxiv.org/abs/2308.11958
"""

import jax
import jax.numpy as jnp

from rlws.settings import NonNegative
from rlws.terms.term import Term


class L2Init(Term):
    """cost * |params - initial params|^2, over all parameters of the learner."""

    name = "l2_init"

    cost: NonNegative = 1e-3

    def init(self, key, params):
        return {}, jax.tree.map(jnp.copy, params)

    def loss(self, params, trajectory, key, state):
        present = {name: params[name] for name in state}  # not those of other terms
        squares = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), present, state)
        distance = sum(jax.tree.leaves(squares))
        return self.cost * distance, {"distance": jnp.sqrt(distance)}
