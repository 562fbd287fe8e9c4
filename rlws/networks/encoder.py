"""One encoder, of pictures say, for a policy and its critics: theirs alone is what teaches it.

Yarats et al., 2021, "Improving sample efficiency in model-free reinforcement learning from images".
https://arxiv.org/abs/1910.01741
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from dm_env import specs

from rlws.networks.compose import Network, compose
from rlws.settings import SettingError
from rlws.types import Array, EnvironmentSpec, Observation, Params

Make = Callable[[EnvironmentSpec], Network]
ENCODER = "encoder"  # its parameters, among those of the critics


def behind(
    spec: EnvironmentSpec,
    encoder: Callable[[Observation], Array] | None,
    policy: Make,
    critic: Make,
) -> tuple[Network, Network]:
    """Returns the networks that `policy` and `critic` make, of features; without encoder, as made.

    The policy is called with `policy_params`, the critics with pairs (observation, action).

    Raises:
      SettingError: the encoder has a memory, or normalises batches.
    """
    if encoder is None:
        return policy(spec), critic(spec)
    encoding = compose(spec, encoder, features=lambda features: features)
    if encoding.recurrent or encoding.learning is not None:
        raise SettingError(
            "encoder must be without a memory and without batch normalisation, got "
            f"{encoder}; give these to backbone"
        )
    key = jax.random.key(0)
    one = jax.eval_shape(lambda: encoding.apply(encoding.init(key), spec.zero_observation()))
    seen = spec._replace(observations=specs.Array(one.features.shape, np.float32))
    encode = lambda params, observation: encoding.apply(params[ENCODER], observation).features
    of_pair = lambda params, pair: (encode(params, pair[0]), pair[1])
    critics = critic(seen)

    def init(key):
        encoder_key, key = jax.random.split(key)
        return critics.init(key) | {ENCODER: encoding.init(encoder_key)}

    return _of(policy(seen), encode), _of(critics, of_pair)._replace(init=init)


def _of(network: Network, encode: Callable[[Params, Any], Any]) -> Network:
    """Returns a network of what `encode` makes of observations."""

    def after(function):
        def call(params, observation, *rest):
            own = {name: x for name, x in params.items() if name != ENCODER}
            return function(own, encode(params, observation), *rest)

        return None if function is None else call

    return network._replace(apply=after(network.apply), learning=after(network.learning))


def policy_params(params: Params) -> Params:
    """Returns what a policy is called with: its own parameters, and the encoder as a constant.

    Args:
      params: of the learner, or targets: with entries `policy` and `critic`.
    """
    encoder = {k: jax.lax.stop_gradient(x) for k, x in params["critic"].items() if k == ENCODER}
    return params["policy"] | encoder
