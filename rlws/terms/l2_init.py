"""L2-init: keeps parameters near where they began, against the loss of plasticity.

Kumar, Marklund and Van Roy, 2023, "Maintaining plasticity in continual learning via regenerative
regularization". https://arxiv.org/abs/2308.11958
"""

import jax
import jax.numpy as jnp

from rlws.settings import NonNegative
from rlws.terms.moments import Moments
from rlws.terms.term import Term


class L2Init(Term):
    """cost * |params - initial params|^2, over all parameters of the learner, its terms before this
    one included, but for running statistics.
    """

    name = "l2_init"

    cost: NonNegative = 1e-3

    def init(self, key, params):
        statistics = lambda x: isinstance(x, Moments)
        free = lambda tree: not any(map(statistics, jax.tree.leaves(tree, is_leaf=statistics)))
        trained = {name: part for name, part in params.items() if free(part)}
        return {}, jax.tree.map(jnp.copy, trained)

    def loss(self, params, trajectory, key, state):
        present = {name: params[name] for name in state}  # not those of terms that follow
        squares = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), present, state)
        distance = sum(jax.tree.leaves(squares))
        return self.cost * distance, {"distance": jnp.sqrt(distance)}
