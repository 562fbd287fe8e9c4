"""Several copies of a network, such as twin critics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlws.networks.compose import Network, compose
from rlws.networks.heads import Value, bounds
from rlws.types import Array, EnvironmentSpec, Observation


def ensemble(network: Network, size: int) -> Network:
    """Returns `size` independent copies of a feed-forward network as one.

    Their outputs are stacked along the last axis: a value of shape [...] becomes [..., size].
    """

    def init(key):
        return {str(i): network.init(k) for i, k in enumerate(jax.random.split(key, size))}

    def apply(params, x):
        outputs = [network.apply(params[str(i)], x) for i in range(size)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=-1), *outputs)

    return Network(init, apply)


def critics(spec: EnvironmentSpec, backbone: Callable[[Observation], Array], size: int) -> Network:
    """Returns `size` critics as one network: values [..., size] of pairs (observation, action).

    They see actions in [-1, 1], where those of the environment have bounds.
    """
    centre, half_range = bounds(spec.actions, finite=False)

    def seen(pair):
        observation, action = pair
        return backbone((observation, (action - centre) / half_range))

    pairs = spec._replace(observations=(spec.observations, spec.actions))
    return ensemble(compose(pairs, seen, value=Value()), size)
