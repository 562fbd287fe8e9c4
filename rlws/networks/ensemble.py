"""Several copies of a network, such as twin critics."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlws.critics import Critic, Returns, Scalar
from rlws.networks.backbones import Recurrent
from rlws.networks.compose import Network, compose
from rlws.networks.heads import ValueReturns, bounds
from rlws.settings import SettingError
from rlws.types import Array, EnvironmentSpec, Observation

SCALAR = Scalar()


def ensemble(network: Network, size: int) -> Network:
    """Returns `size` independent copies of a feed-forward network as one.

    Their outputs are stacked along the last axis: a value of shape [...] becomes [..., size]. What
    they say of returns is stacked before the atoms, [..., size, N].

    Raises:
      SettingError: it has a memory, of which nobody would keep the state.
    """
    _check(network.recurrent)

    def init(key):
        return {str(i): network.init(k) for i, k in enumerate(jax.random.split(key, size))}

    def stack(*outputs):
        axis = -2 if isinstance(outputs[0], Returns) else -1
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis), *outputs)

    def each(function, params, *inputs, key=None):
        keys = [()] * size if key is None else [(k,) for k in jax.random.split(key, size)]
        return [function(params[str(i)], *inputs, *keys[i]) for i in range(size)]

    def joined(outputs):
        return jax.tree.map(stack, *outputs, is_leaf=lambda x: isinstance(x, Returns))

    def apply(params, x, key=None):
        return joined(each(network.apply, params, x, key=key))

    def learning(params, x, weight, key=None):
        outputs, found = zip(*each(network.learning, params, x, weight, key=key), strict=True)
        return joined(outputs), {str(i): part for i, part in enumerate(found)}

    normalised = network.learning is not None
    return Network(init, apply, None, network.random, learning if normalised else None)


def critics(
    spec: EnvironmentSpec,
    backbone: Callable[[Observation], Array],
    size: int,
    critic: Critic = SCALAR,
) -> Network:
    """Returns `size` critics as one network.

    Its outputs, for pairs (observation, action), are `value` [..., size] and `value_returns`.

    They see actions in [-1, 1], where those of the environment have bounds.

    Raises:
      SettingError: the backbone has a memory.
    """
    _check(isinstance(backbone, Recurrent))
    centre, half_range = bounds(spec.actions, finite=False)

    def seen(pair):
        observation, action = pair
        return backbone((observation, (action - centre) / half_range))

    pairs = spec._replace(observations=(spec.observations, spec.actions))
    return ensemble(compose(pairs, seen, value=ValueReturns(critic)), size)


def _check(recurrent: bool) -> None:
    if recurrent:
        raise SettingError(
            "an ensemble, such as twin critics, is of networks without a memory, got a recurrent "
            "backbone; take another, such as mlp, or another agent: DQN and PPO can have one"
        )
