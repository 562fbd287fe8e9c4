"""A network = a backbone and heads, transformed once."""

import collections
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from dm_env import specs

from rlws.critics import Returns
from rlws.networks import batch_norm, masks, refusals
from rlws.networks.backbones import Recurrent
from rlws.networks.heads import ActionValues
from rlws.numerics.memo import Remembered
from rlws.settings import SettingError
from rlws.types import Array, EnvironmentSpec, Key, Observation, Params, Trajectory


class Network(NamedTuple):
    """Pure functions of parameters. Outputs are a named tuple with a field for each head.

    A network without a recurrent core carries the empty state `()`. Where parts of it draw (noise,
    dropout, quantiles), it does so by the key it is given, and without one is deterministic.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., Any]  # params, observation, key; any leading axes; without a core only
    core: Any = None  # a `Core`, or None
    random: bool = False  # whether outputs depend on the key
    learning: Any = None  # what `train` calls; None: there is no batch normalisation

    @property
    def recurrent(self) -> bool:
        """Whether outputs depend on what came before in the episode."""
        return self.core is not None

    def initial_state(self) -> Any:
        """Returns the core state at the start of an episode."""
        return () if self.core is None else self.core.initial_state

    def __call__(self, params: Params, observation: Observation, key: Key | None = None) -> Any:
        """Returns what `apply` does, where the network does not draw also of a key."""
        return self.apply(params, observation, *self._keys(key))

    def train(
        self, params: Params, observation: Observation, weight: Array, key: Key | None = None
    ) -> tuple[Any, Params]:
        """Returns outputs for several observations by the statistics of the batch, and those.

        For the loss of one trajectory. The second is a part of the parameters, {} without batch
        normalisation, and goes back by the metric `statistics`.

        Args:
          params: of the network.
          observation: leaves [n, ...].
          weight: where it is 0, an observation does not count for statistics, [n].
          key: of what draws.
        """
        if self.learning is None:
            return self(params, observation, key), {}
        return self.learning(params, observation, weight, *self._keys(key))

    def step(
        self,
        params: Params,
        observation: Observation,
        first: Array,
        state: Any,
        key: Key | None = None,
    ) -> tuple[Any, Any]:
        """Returns the outputs for one observation and the next core state."""
        if self.core is None:
            return self(params, observation, key), state
        before, after = self._keys(key, 2)
        features = self.core.encode(params, observation, *before)
        features, state = self._recur(params, features, first, state)
        return self.core.decode(params, features, *after), state

    def _keys(self, key, parts=1):
        """Returns the last arguments of what may draw, or of each of several `parts`."""
        if parts == 1:
            return (key,) if self.random and key is not None else ()
        keys = (None,) * parts if key is None else jax.random.split(key, parts)
        return [self._keys(key) for key in keys]

    def unroll(self, params: Params, trajectory: Trajectory, key: Key | None = None) -> Any:
        """Returns the outputs for all observations of a trajectory, leaves [T + 1, ...].

        A core starts from the state the actor recorded with the first step, and anew wherever an
        episode begins.
        """
        if self.core is None:
            return self(params, trajectory.observation, key)
        before, after = self._keys(key, 2)
        return self.core.decode(params, self._features(params, trajectory, *before)[0], *after)

    def unroll_following(
        self, params: Params, trajectory: Trajectory, key: Key | None = None
    ) -> Any:
        """Returns the outputs for all observations but the first, leaves [T, ...]."""
        later = lambda tree: jax.tree.map(lambda x: x[1:], tree)
        if self.core is None:
            return self(params, later(trajectory.observation), key)
        return later(self.unroll(params, trajectory, key))

    def warm_up(self, params: Params, trajectory: Trajectory, steps: int) -> Trajectory:
        """Returns the trajectory without its first `steps` steps, which only bring the core to the
        state it would be in by these parameters ("burn-in"); no gradient flows through them.

        Kapturowski et al., 2019, "Recurrent experience replay in distributed reinforcement
        learning".
        """
        later = lambda x: x[steps:]
        rest = Trajectory(*(jax.tree.map(later, part) for part in trajectory))
        if self.core is None or not steps:
            return rest
        states = self._features(jax.lax.stop_gradient(params), trajectory)[1]
        # The state after step `steps` - 1 is the one before the first that remains.
        before = jax.tree.map(lambda x: jax.lax.stop_gradient(x[steps - 1 : -1]), states)
        cut = lambda x, y: y[: len(x)]
        core = jax.tree.map(cut, rest.extras["core"], before)
        return rest._replace(extras={**rest.extras, "core": core})

    def _features(self, params, trajectory, *key):
        """Returns what heads stand on and the core state after each observation, [T + 1, ...]."""
        features = self.core.encode(params, trajectory.observation, *key)
        start = jax.tree.map(lambda x: x[0], trajectory.extras["core"])

        def step(state, inputs):
            features, first = inputs
            features, state = self._recur(params, features, first, state)
            return state, (features, state)

        return jax.lax.scan(step, start, (features, trajectory.first))[1]

    def _recur(self, params, features, first, state):
        anew = lambda initial, old: jnp.where(first, initial, old)
        return self.core.step(params, features, jax.tree.map(anew, self.core.initial_state, state))


class Core(NamedTuple):
    """The parts of a recurrent network; `encode` and `decode` take any leading axes."""

    encode: Callable[..., Any]  # params, observation, key
    step: Callable[..., tuple[Any, Any]]  # params, features, state -> features, state
    decode: Callable[..., Any]  # params, features, key
    initial_state: Any


@Remembered
def compose(
    spec: EnvironmentSpec,
    backbone: Callable[[Observation], Array],
    *,
    shared: bool | tuple[tuple[str, ...], ...] = True,
    **heads: Callable[[Array], Any],
) -> Network:
    """Returns the network whose heads stand on one backbone, or on one copy each if not `shared`.

    Or `shared` says which share one: (("policy", "advice"), ("value",)).

    `backbone` and `heads` are written for one observation and run inside `hk.transform`. Discrete
    observations arrive one-hot, and without an `action_mask`, which policies and action values
    (the head `q`, or any `ActionValues`) obey. A `Recurrent` backbone makes the network recurrent.
    What a head says of a return (`Returns`) becomes two outputs: its mean, by the head's name, and
    with `_returns` behind that name all of it. What draws asks `hk.maybe_next_rng_key()`, which is
    None where nothing is to be drawn.

    Raises:
      SettingError: a head or a mask does not fit the environment's actions; both shapes are named.
        Or a part keeps a state of Haiku's, or draws without asking.
    """
    masks.check(spec)
    sizes = [math.prod(x.shape) for x in jax.tree.leaves(spec.observations)]
    if not sizes or not all(sizes):
        raise SettingError(
            f"an observation, and each part of it, must hold a number at least, got "
            f"{spec.observations}; leave out what is empty, or show the agent a constant"
        )
    groups = tuple((name,) for name in heads) if shared is False else shared
    branches = dict.fromkeys(heads, "backbone")
    if groups is not True:
        branches = {name: f"{group[0]}_backbone" for group in groups for name in group}
    if branches.keys() != heads.keys():
        raise SettingError(f"shared must name each of {', '.join(heads)}, got {shared}")
    scopes = tuple(dict.fromkeys(branches.values()))
    core_settings: Any = backbone
    recurrent = isinstance(backbone, Recurrent)

    def encode(observation):
        observation = jax.tree.map(_encode, spec.observations, observation)
        observation, mask = masks.split(observation)
        features = {s: _features(_scoped(s, backbone, observation)) for s in scopes}
        return features if mask is None else {**features, masks.KEY: mask}

    def recur(before, state):
        found = {s: _scoped(f"{s}_core", core_settings.recur, before[s], state[s]) for s in scopes}
        features, state = ({scope: pair[i] for scope, pair in found.items()} for i in range(2))
        return {**before, **features}, state

    def decode(features):
        mask = features.get(masks.KEY)
        found = {
            name: _scoped(name, head, features[branches[name]]) for name, head in heads.items()
        }
        said = {n: x for n, x in found.items() if isinstance(x, Returns)}
        found |= {n: x.mean() for n, x in said.items()}
        if mask is not None:
            valued = {n for n, head in heads.items() if n == "q" or isinstance(head, ActionValues)}
            found = {n: masks.only_legal(n, x, n in valued, mask, spec) for n, x in found.items()}
        found |= {f"{n}_returns": x for n, x in said.items()}
        return outputs_type(tuple(found))(**found)

    def build():
        def whole(observation):
            features = encode(observation)
            return decode(recur(features, start)[0] if recurrent else features)

        def learning(seen):
            observation, weight = seen
            with batch_norm.learning(weight) as found:
                return whole(observation), found

        return whole, (whole, encode, recur, decode, learning)

    start = {scope: core_settings.initial_state() for scope in scopes} if recurrent else ()
    transformed = hk.multi_transform(build)
    whole, *parts, learning = transformed.apply
    example = spec.zero_observation()
    leading = functools.partial(_leading_shape, spec.observations)
    of_features = lambda features: next(iter(features.values())).shape[:-1]
    core = None
    if recurrent:
        advance = lambda params, *inputs: parts[1](params, None, *inputs)
        core = Core(_batched(parts[0], leading), advance, _batched(parts[2], of_features), start)
    network = Network(lambda key: transformed.init(key, example), _batched(whole, leading), core)
    key = jax.random.key(0)
    with refusals.advice():
        params = jax.eval_shape(network.init, key)
        outputs = jax.eval_shape(lambda params: whole(params, None, example), params)
    _check_heads(spec, outputs)
    if batch_norm.statistics(params) and not recurrent:
        network = network._replace(learning=_learning(learning, leading))
    return network._replace(random=_draws(lambda key, params: whole(params, key, example), params))


@functools.cache
def outputs_type(names: tuple[str, ...]) -> Any:
    """Returns the named tuple of what heads with these names say."""
    return collections.namedtuple("Outputs", names)


def _features(found: Any) -> Any:
    """Returns what a backbone has returned, if heads can stand on it; a dict is their affair."""
    if isinstance(found, dict):
        return found
    is_array = hasattr(found, "dtype")
    if not is_array or not jnp.issubdtype(found.dtype, jnp.floating) or not found.ndim:
        got = f"{found.dtype}{list(found.shape)}" if is_array else type(found).__name__
        raise SettingError(f"a backbone must return features, a float array [n], got {got}")
    return found


def _draws(function: Callable, *args: Any) -> bool:
    """Returns whether a function uses the key that is its first argument."""
    jaxpr = jax.make_jaxpr(function)(jax.random.key(0), *args).jaxpr
    return any(jaxpr.invars[0] in equation.invars for equation in jaxpr.eqns)


def _batched(
    apply: Callable, leading_shape: Callable[[Any], tuple[int, ...]], axis_name: str | None = None
) -> Callable:
    """Returns `apply`, written for one observation or its features, for any leading axes."""

    def batched(params, inputs, key=None):
        leading = leading_shape(inputs)
        if not leading:
            return apply(params, key, inputs)
        # One flat batch axis: vmap over each leading axis in turn gives slower matrix products.
        merge = lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[len(leading) :]))
        split = lambda x: jnp.reshape(x, (*leading, *x.shape[1:]))
        keys = None if key is None else jax.random.split(key, math.prod(leading))
        each = jax.vmap(apply, (None, None if key is None else 0, 0), axis_name=axis_name)
        return jax.tree.map(split, each(params, keys, jax.tree.map(merge, inputs)))

    return batched


def _learning(apply: Callable, leading_shape: Callable[[Any], tuple[int, ...]]) -> Callable:
    """Returns `apply`, of one observation and its weight, for [n] of them."""
    shape = lambda seen: leading_shape(seen[0])
    batched = _batched(apply, shape, batch_norm.OBSERVATIONS)

    def learning(params, observation, weight, key=None):
        outputs, found = batched(params, (observation, weight), key)
        return outputs, jax.tree.map(lambda x: x[0], found)  # the same for all

    return learning


def _scoped(name: str, function: Callable, *args: Any) -> Any:
    with hk.experimental.name_scope(name):
        return function(*args)


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
