"""A learner whose networks say what they are told, to see what its loss makes of each number.

What networks say (logits, values, action values) is replaced by tables with an entry for each
observation of a batch, and the update tells the gradient of the loss with respect to each entry.
No parameter, feature or optimiser lies between: whatever the algorithm, an action that turned out
well must be made likelier, and a value be drawn to what came of it, to within rounding.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rlws.critics import Returns
from rlws.diagnose import compilation
from rlws.diagnose.check import is_params
from rlws.learner import Learner, LearnerState
from rlws.networks import Network
from rlws.types import Metrics, Params, Trajectory

NAME = "~probes"  # the entry of parameters that is added to what networks say
SMALL = 1e-6  # how far an update moves those, so that many updates see the same numbers
OUTPUTS, POLICIES = ("value", "q", "action"), ("logits", "mean")  # of networks and their policies
Numbers = dict[str, np.ndarray]  # of each output, by "field.output"


@dataclasses.dataclass(frozen=True)
class Instrument:
    """A learner with known outputs; the last feature of an observation is its number.

    Of networks without a core, of observations that are one array.
    """

    learner: Learner  # without terms
    start: LearnerState
    batch: Trajectory  # leaves [B, T, ...], as terms prepare it
    # Outputs of networks that are shown an action, too, and of what structure the parameters are
    # that networks get; known with `sizes`.
    of_actions: set[str] = dataclasses.field(default_factory=set)
    structures: set[Any] = dataclasses.field(default_factory=set)

    @cached_property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The outputs that can be told, and the shape of each for one observation."""
        found: dict[str, tuple[int, ...]] = {}

        def record(field, outputs, leading, inputs=None):
            for name, x in _numbers(outputs).items():
                if isinstance(inputs, tuple):
                    self.of_actions.add(f"{field}.{name}")
                found[f"{field}.{name}"] = x.shape[leading:]
            return outputs

        see = lambda params: self.structures.add(jax.tree.structure(params))
        learner = self._with(record, see)
        jax.eval_shape(lambda: learner.update(self.start, self._tagged(), jax.random.key(0)))
        if not self.structures <= {jax.tree.structure(x) for x in _parts(self.start.params)}:
            self.structures.clear()  # they are put together anew
        return found

    @property
    def state_value(self) -> str:
        """The first output that says what an observation is worth, "" where there is none."""
        names = (name for name in self.sizes if name.endswith(".value"))
        return next((name for name in names if name not in self.of_actions), "")

    @property
    def count(self) -> int:
        """How many observations there are in the batch, B (T + 1)."""
        return self.batch.first.size

    def index(self, final: bool = False) -> np.ndarray:
        """Returns the number of the observation before each step, or after it, [B, T]."""
        numbers = np.arange(self.count).reshape(self.batch.first.shape)
        return numbers[:, 1:] if final else numbers[:, :-1]

    @property
    def critics(self) -> int:
        """How many critics a network has."""
        shapes = [x for name, x in self.sizes.items() if name.endswith(".value")]
        return max((int(np.prod(x)) for x in shapes), default=0)

    @property
    def flat(self) -> np.ndarray:
        """Slopes of 0, of each critic in the action."""
        return np.zeros(max(self.critics, 1), np.float32)

    def told(self, tables: Numbers, slope: Any, outputs: Any, inputs: Any, probes: Any, field: str):
        """Returns outputs with what tables say of the inputs, and the probes, in their place."""
        observation, action = inputs if isinstance(inputs, tuple) else (inputs, None)
        index = jnp.int32(observation[..., -1])
        new = {}
        for name in _numbers(outputs):
            key = f"{field}.{name}"
            new[name] = probes[key][index] + tables[key][index]
            if action is not None:  # a critic, or several [..., critics]
                several = new[name].ndim > index.ndim
                steep = jnp.broadcast_to(slope, (*index.shape, jnp.size(slope)))
                tilt = jnp.sum(action, axis=-1, keepdims=True) * steep
                new[name] += tilt if several else tilt[..., 0]
        return _replaced(outputs, new)

    @cached_property
    def measure(self) -> Callable[..., tuple[Numbers, Params, Metrics]]:
        """Returns minus the gradient with respect to each output, the other parameters' too.

        Of tables [count, ...], slopes of critics in the action [critics], fields of the batch to
        replace, parameters to replace, and how much more target networks say everything is worth.
        """

        @compilation.jit
        def measure(tables, slope, fields, others, more):
            def tell(field, outputs, leading, inputs=None, probes=None):
                return self.told(tables, slope, outputs, inputs, probes, field)

            start = self.start
            probes = {key: jnp.zeros_like(x) for key, x in tables.items()}
            params = self._probed({**start.params, **others}, probes)
            lifted = {k: x + more * k.endswith((".value", ".q")) for k, x in probes.items()}
            extra = self._probed(start.extra, lifted, start.params)
            state = start._replace(params=params, extra=extra, updates=jnp.int32(1))
            batch = self._tagged()._replace(**fields)
            after, metrics = self._with(tell).update(state, batch, jax.random.key(0))
            # An update that puts parameters together anew leaves out what it does not know.
            known = {name: params[name] for name in after.params}
            moved = jax.tree.map(lambda x, y: (x - y) / SMALL, dict(after.params), known)
            return _summed(moved, probes), moved, metrics

        return lambda tables, slope, fields, others, more=0.0: jax.device_get(
            measure(tables, slope, fields, others, more)
        )

    @property
    def has_targets(self) -> bool:
        """Whether the learner keeps parameters, besides those that it learns, in `extra`."""
        return any(map(is_params, jax.tree.leaves(self.start.extra, is_leaf=is_params)))

    def values(self, tables: Numbers, slope: Any) -> np.ndarray:
        """Returns what `Learner.value` says of all observations, [B, T + 1]."""

        def values(tables, slope):
            def tell(field, outputs, leading, inputs=None, probes=None):
                return self.told(tables, slope, outputs, inputs, probes, field)

            probes = {key: jnp.zeros_like(x) for key, x in tables.items()}
            params = self._probed(self.start.params, probes)
            learner = self._with(tell)
            return jax.vmap(lambda x: learner.value(params, x))(self._tagged())

        return np.asarray(compilation.jit(values)(tables, slope))

    def _tagged(self):
        """Returns the batch with the number of each observation as its last feature."""
        numbers = np.arange(self.count, dtype=np.float32).reshape(self.batch.first.shape)
        seen = jnp.asarray(self.batch.observation).at[..., -1].set(numbers)
        return self.batch._replace(observation=seen)

    def _probed(self, tree: Any, probes: Any, of: Any = None) -> Any:
        """Returns a tree with the entry of probes wherever a network looks for its parameters.

        What has axes before those of the parameters `of` which it is made is several copies of
        them.
        """

        def add(x):
            if not isinstance(x, Mapping):
                return x
            own = probes
            if of is not None and jax.tree.structure(x) == jax.tree.structure(of):
                leaf, one = jax.tree.leaves(x)[0], jax.tree.leaves(of)[0]
                copies = jnp.shape(leaf)[: jnp.ndim(leaf) - jnp.ndim(one)]
                own = jax.tree.map(lambda p: jnp.broadcast_to(p, (*copies, *p.shape)), probes)
            inner = {name: self._probed(y, own) for name, y in x.items()}
            here = is_params(x) if not self.structures else jax.tree.structure(x) in self.structures
            return inner | {NAME: own} if here else inner

        return jax.tree.map(add, tree, is_leaf=lambda x: isinstance(x, Mapping))

    def _with(self, tell, see=lambda params: None):
        """Returns the learner with networks that say what they are told, and a slow optimiser."""
        fields = {f.name: getattr(self.learner, f.name) for f in dataclasses.fields(self.learner)}
        networks: dict[str, Any] = {
            name: network._replace(apply=_telling(name, network, tell, see))
            for name, network in fields.items()
            if isinstance(network, Network)
        }
        slow = lambda grads, state, params=None: (
            jax.tree.map(lambda g: jnp.float32(-SMALL) * g, grads),
            state,
        )
        slowed = {
            name: optax.GradientTransformation(x.init, slow)
            for name, x in fields.items()
            if isinstance(x, optax.GradientTransformation)
        }
        return dataclasses.replace(self.learner, **slowed, **networks)


def _telling(field: str, network: Network, tell: Callable, see: Callable) -> Callable:
    """Returns `apply` that goes on as `tell` says, where the last feature is a number."""

    def apply(params, inputs, *rest):
        see(params)
        seen = inputs[0] if isinstance(inputs, tuple) else inputs
        plain = seen.at[..., -1].set(0.0)
        given = (plain, *inputs[1:]) if isinstance(inputs, tuple) else plain
        outputs = network.apply(_without_probes(params), given, *rest)
        if NAME not in params:
            return tell(field, outputs, seen.ndim - 1, inputs)
        return tell(field, outputs, seen.ndim - 1, inputs, params[NAME])

    return apply


def _numbers(outputs: Any) -> dict[str, Any]:
    """Returns the outputs whose meaning is known by their names."""
    returns = lambda name: getattr(outputs, f"{name}_returns", None)
    told = lambda name: hasattr(outputs, name) and _is_number(returns(name))
    found = {name: getattr(outputs, name) for name in OUTPUTS if told(name)}
    policy = getattr(outputs, "policy", outputs)  # or a head of that name
    return found | {name: getattr(policy, name) for name in POLICIES if hasattr(policy, name)}


def _is_number(said: Returns | None) -> bool:
    """Returns whether no more than a number is said of a return."""
    return said is None or (said.atoms.shape[-1] == 1 and said.inner is None)


def _replaced(outputs: Any, new: dict[str, Any]) -> Any:
    if policy := {x: new.pop(x) for x in POLICIES if x in new and not hasattr(outputs, x)}:
        new["policy"] = outputs.policy._replace(**policy)
    for name in OUTPUTS:
        if (said := getattr(outputs, f"{name}_returns", None)) is not None and name in new:
            new[f"{name}_returns"] = dataclasses.replace(said, atoms=new[name][..., None])
    return outputs._replace(**new)


def _parts(tree: Any) -> list[Any]:
    """Returns parameters, and all that they are made of."""
    if not isinstance(tree, Mapping):
        return []
    return [tree, *(part for x in tree.values() for part in _parts(x))]


def _without_probes(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {name: _without_probes(x) for name, x in tree.items() if name != NAME}


def _summed(tree: Any, zeros: Any) -> Any:
    """Returns the sum of all entries of probes."""
    if not isinstance(tree, Mapping):
        return zeros
    parts = [x if name == NAME else _summed(x, zeros) for name, x in tree.items()]
    return jax.tree.map(lambda *x: sum(x), zeros, *parts)
