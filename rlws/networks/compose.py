"""A network = a backbone and heads, transformed once."""

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from dm_env import specs

from rlws.settings import SettingError
from rlws.types import Array, EnvironmentSpec, Key, Observation, Params


class Network(NamedTuple):
    """Pure functions of parameters. Outputs are a named tuple with a field for each head.

    A network without a recurrent core carries the empty state `()`.
    """

    init: Callable[[Key], Params]
    apply: Callable[[Params, Observation], Any]  # for any leading axes

    def initial_state(self) -> Any:
        """Returns the core state at the start of an episode."""
        return ()

    def step(
        self, params: Params, observation: Observation, first: Array, state: Any
    ) -> tuple[Any, Any]:
        """Returns the outputs for one observation and the next core state."""
        return self.apply(params, observation), state

    def unroll(self, params: Params, observation: Observation, first: Array) -> Any:
        """Returns the outputs along a trajectory: observation [T + 1, ...], first [T + 1]."""
        return self.apply(params, observation)


def compose(
    spec: EnvironmentSpec,
    backbone: Callable[[Observation], Array],
    *,
    shared: bool = True,
    **heads: Callable[[Array], Any],
) -> Network:
    """Returns the network whose heads stand on one backbone, or on one copy each if not `shared`.

    `backbone` and `heads` are written for one observation and run inside `hk.transform`. Discrete
    observations arrive one-hot.

    Raises:
      SettingError: a head does not fit the environment's actions; both shapes are named.
    """
    Outputs = collections.namedtuple("Outputs", list(heads))  # type: ignore[misc]

    def forward(observation):
        observation = jax.tree.map(_encode, spec.observations, observation)
        branch = functools.cache(lambda scope: _scoped(scope, backbone, observation))
        return Outputs(
            *(
                _scoped(name, head, branch("backbone" if shared else f"{name}_backbone"))
                for name, head in heads.items()
            )
        )

    transformed = hk.without_apply_rng(hk.transform(forward))
    example = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), spec.observations)

    def apply(params, observation):
        leading = _leading_shape(spec.observations, observation)
        if not leading:
            return transformed.apply(params, observation)
        # One flat batch axis: vmap over each leading axis in turn gives slower matrix products.
        merge = lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[len(leading) :]))
        split = lambda x: jnp.reshape(x, (*leading, *x.shape[1:]))
        batched = jax.vmap(transformed.apply, in_axes=(None, 0))
        return jax.tree.map(split, batched(params, jax.tree.map(merge, observation)))

    network = Network(lambda key: transformed.init(key, example), apply)
    build = lambda: apply(network.init(jax.random.key(0)), example)
    _check_heads(spec, jax.eval_shape(build))
    return network


def _scoped(name: str, function: Callable, x: Any) -> Any:
    with hk.experimental.name_scope(name):
        return function(x)


def _encode(spec: specs.Array, x: Array) -> Array:
    return jax.nn.one_hot(x, spec.num_values) if isinstance(spec, specs.DiscreteArray) else x


def _leading_shape(spec: Any, observation: Observation) -> tuple[int, ...]:
    expected, wanted = jax.tree.flatten_with_path(spec)
    found, given = jax.tree.flatten(observation)
    if wanted != given:
        raise SettingError(f"observation must have the structure {wanted}, got {given}")
    leading = None
    for (path, leaf_spec), leaf in zip(expected, found, strict=True):
        shape = jnp.shape(leaf)
        axes = len(shape) - len(leaf_spec.shape)
        lead = shape[: max(axes, 0)]
        leading = lead if leading is None else leading
        if axes < 0 or shape[axes:] != leaf_spec.shape or lead != leading:
            raise SettingError(
                f"observation{jax.tree_util.keystr(path)} must have shape "
                f"{leaf_spec.shape} after leading axes {leading or '()'}, got {shape}"
            )
    return leading or ()


def _check_heads(spec: EnvironmentSpec, outputs: Any) -> None:
    for name, output in outputs._asdict().items():
        if hasattr(output, "check_actions"):
            output.check_actions(name, spec.actions)
        elif name == "value" and output.shape != ():
            raise SettingError(f"head 'value' must have shape (), got {output.shape}")
