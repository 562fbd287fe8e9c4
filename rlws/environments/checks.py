"""Whether an environment does what it says."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments import rules
from rlws.numerics import streams
from rlws.settings import SettingError
from rlws.types import EnvironmentSpec


class EnvironmentFault(SettingError):
    """An environment does not do what it says, or does not answer."""

    status = 4  # of a process that ends because of it


class AgentFault(SettingError):
    """A policy answers with what is no action."""


def check_first(spec: EnvironmentSpec, timestep: dm_env.TimeStep, who: str) -> None:
    """Checks the timestep with which an environment begins, so before anything is compiled.

    Raises:
      EnvironmentFault: it is no FIRST one, or not as `check_timestep` wants it, or not finite.
    """
    if not isinstance(timestep, dm_env.TimeStep) or timestep.step_type != dm_env.StepType.FIRST:
        raise EnvironmentFault(
            f"{who}: reset must return a FIRST dm_env.TimeStep, got {timestep!r}"
        )
    check_timestep(spec, timestep, who)
    batch = jax.tree.map(lambda x: np.asarray(x)[None, None], filled(timestep))
    check_rules(rules.of_timesteps(spec, batch), lambda t, i: who)


def number(found: Any) -> Any:
    """Returns a number as a float, or what is none as it came, for `check_timestep` to name."""
    if type(found) is float:
        return found
    x = np.asarray(found)
    return float(x) if x.shape == () and x.dtype.kind in "biuf" else found


def not_gymnasiums(method: str, found: Any) -> EnvironmentFault:
    """Returns the error that says so of what `reset` or `step` returned that is not as it must."""
    wanted = {
        "reset": "(observation, info)",
        "step": "(observation, reward, terminated, truncated, info)",
    }
    what = f"a tuple of {len(found)}" if isinstance(found, tuple) else type(found).__name__
    return EnvironmentFault(
        f"{method} must return {wanted[method]}, as gymnasium's do, got {what}; mend it, or wrap "
        "one of the older gym in shimmy's GymV21CompatibilityV0"
    )


@contextlib.contextmanager
def closed_on_error(made: Any) -> Iterator[None]:
    """Within it, an error closes what was made, as nobody else will."""
    try:
        yield
    except BaseException:
        getattr(made, "close", lambda: None)()
        raise


def filled(timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    """Returns a timestep as NumPy, with reward 0 and discount 1 for None."""
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
        np.int32(step_type),
        np.float64(0.0 if reward is None else reward),
        np.float64(1.0 if discount is None else discount),
        jax.tree.map(np.asarray, observation),
    )


def check_timestep(spec: EnvironmentSpec, timestep: Any, who: str) -> None:
    """Checks what a timestep of an environment is made of.

    Raises:
      EnvironmentFault: `who` gave no TimeStep; its step type, reward or discount is no number; its
        observation has another structure, shape or kind of number than the spec says, or a number
        that does not fit into the type in which JAX computes with it.
    """
    if not isinstance(timestep, dm_env.TimeStep):
        raise EnvironmentFault(f"{who} must return a dm_env.TimeStep, got {timestep!r}")
    first = timestep.step_type == dm_env.StepType.FIRST
    if np.ndim(timestep.step_type) != 0 or timestep.step_type not in (0, 1, 2):
        raise EnvironmentFault(
            f"{who}: step_type must be FIRST, MID or LAST, got {timestep.step_type!r}"
        )
    for name in ("reward", "discount"):
        x = np.asarray(found := getattr(timestep, name))
        if not (x.shape == () and x.dtype.kind in "biuf") and not (first and found is None):
            raise EnvironmentFault(
                f"{who}: {name} must be a number, None only on FIRST, got {found!r} with step_type "
                f"{timestep.step_type!r}"
            )
    check_observations(spec, timestep.observation, who)


def check_observations(
    spec: EnvironmentSpec, observation: Any, who: str = "one of the environments", axes: int = 0
) -> None:
    """Checks an observation as it came, or several with `axes` more axes in front.

    Raises:
      EnvironmentFault: see `check_timestep`.
    """
    arrays = jax.tree.map(lambda x: x if hasattr(x, "dtype") else np.asarray(x), observation)
    if wrong := rules.unlike(spec.observations, arrays, axes):
        raise EnvironmentFault(
            f"{who}: observation{wrong}; mend the environment or its observation_spec"
        )


def check_device(environment: Any) -> None:
    """Checks, before anything is compiled, what the functions of a JaxEnvironment return.

    Raises:
      EnvironmentFault: a timestep is not of arrays of the types that it must have, an observation
        is unlike its spec, or a step turns the state into one of other shapes or types.
    """
    who, spec = type(environment).__name__, environment.spec()
    if not isinstance(spec, EnvironmentSpec):
        raise EnvironmentFault(f"{who}.spec must return an EnvironmentSpec, got {spec!r}")
    key = streams.draw(streams.key(0, streams.Stream.ENVIRONMENT))  # of the kind that it will get
    begun = _traced(f"{who}.reset", spec, environment.reset, key)
    # Of an action JAX asks shape and dtype, and a spec has both.
    stepped = _traced(f"{who}.step", spec, environment.step, begun, spec.actions)
    if jax.tree.structure(begun) != jax.tree.structure(stepped):
        raise EnvironmentFault(
            f"{who}.step must return a state of the structure it got, {jax.tree.structure(begun)}, "
            f"got {jax.tree.structure(stepped)}"
        )
    for (path, x), y in zip(
        jax.tree.leaves_with_path(begun), jax.tree.leaves(stepped), strict=True
    ):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise EnvironmentFault(
                f"{who}.step: state{jax.tree_util.keystr(path)} must stay "
                f"{x.dtype}{list(x.shape)}, as reset returns it, got {y.dtype}{list(y.shape)}"
            )


def _traced(who: str, spec: EnvironmentSpec, function: Callable, *args: Any) -> Any:
    """Returns the shapes of the state a function returns, once it and the timestep are checked."""
    found: list[Any] = []

    def array(path, x):
        try:
            return jnp.asarray(x)
        except (TypeError, ValueError):
            place = jax.tree_util.keystr(path)
            raise EnvironmentFault(
                f"{who} must return a state and a timestep of numbers and arrays of them, got {x!r}"
                f" at {place} of (state, timestep); keep what never changes in the environment"
            ) from None

    def told(*args):
        found.append(function(*args))
        return jax.tree_util.tree_map_with_path(array, found[0])

    with named(who, "when it is traced"):
        shapes = jax.eval_shape(told, *args)
    if not (isinstance(shapes, tuple) and len(shapes) == 2):
        raise EnvironmentFault(f"{who} must return (state, timestep), got {found[0]!r}")
    state, timestep = shapes
    if not isinstance(timestep, dm_env.TimeStep):
        raise EnvironmentFault(f"{who} must return a dm_env.TimeStep, got {timestep!r}")
    for name, kind in {"step_type": "int32", "reward": "float32", "discount": "float32"}.items():
        came, x = getattr(found[0][1], name), getattr(timestep, name)
        if not hasattr(came, "dtype") or (x.shape, x.dtype) != ((), kind):
            raise EnvironmentFault(
                f"{who}: {name} must be an array {kind}[], got {came!r}; the functions `first` and "
                "`following` of rlws.environments.jax_environment make timesteps"
            )
    check_observations(spec, timestep.observation, who)
    leaves = jax.tree.leaves_with_path(spec.observations)
    # No number is known yet, so none can be seen to be lost.
    for (path, leaf), x in zip(leaves, jax.tree.leaves(timestep.observation), strict=True):
        if x.dtype != (held := jax.dtypes.canonicalize_dtype(leaf.dtype)):
            raise EnvironmentFault(
                f"{who}: observation{jax.tree_util.keystr(path)} must be {held}, as the spec says, "
                f"got {x.dtype}; say so in the spec, or use astype"
            )
    return state


def check_rules(found: list[rules.Rule], who: Callable[[int, int], str]) -> None:
    """Checks steps that were taken.

    Args:
      found: of NumPy arrays.
      who: returns what to call environment i at step t of these.

    Raises:
      AgentFault: an action is not finite, or not within its bounds.
      EnvironmentFault: a timestep is not as it must be.
    """
    broken = [(*np.argwhere(rule.broken)[0], rule) for rule in found if rule.broken.any()]
    if broken:
        *place, rule = min(broken, key=lambda first: first[0])  # of those at one step, the cause
        raise fault(rule, rule.x[tuple(place)], who(*map(int, place[:2])))


def fault(rule: rules.Rule, value: Any, who: str) -> SettingError:
    """Returns the error that says so of a value that breaks a rule."""
    said = f"{who}: {rule.name} must be {rule.must}, got {value}; mend the"
    if rule.whose == "policy":
        return AgentFault(f"policy in {said} actor, or what it has learned")
    return EnvironmentFault(f"{said} environment")


def check_actions(spec: Any, action: Any, axes: int = 0) -> None:
    """Checks, before anything is compiled, that actions are such as an environment takes.

    Args:
      spec: of an action.
      action: leaves with `axes` more axes in front.

    Raises:
      AgentFault: they are nested otherwise, or of another shape or kind of number.
    """
    if wrong := rules.unlike(spec, action, axes):
        raise AgentFault(f"policy: action{wrong}; mend the actor")


def blame(error: BaseException, who: str, when: str = "") -> None:
    """Notes in an error which environment raised it.

    Raises:
      EnvironmentFault: that would end the process as if all were well.
    """
    if isinstance(error, SystemExit):
        raise EnvironmentFault(f"{who} must not exit, got {error!r}") from error
    if isinstance(error, StopIteration):  # which the next generator would take for its own
        fault = EnvironmentFault(f"{who} must end its episode instead, got {error!r}")
        fault.add_note(f"{who}{when}")
        raise fault from error
    name = who.rstrip(",")
    if isinstance(error, EnvironmentFault) and not str(error).startswith(name):
        error.args = (f"{name}: {error}",)
    error.add_note(f"{who}{when}")


@contextlib.contextmanager
def named(who: str | Callable[[], tuple[str, int] | None], doing: str = "") -> Iterator[None]:
    """Within it, `blame` falls on `who`, or on the first of what that returns; None: on nobody."""
    try:
        yield
    except (Exception, SystemExit) as error:
        found = (who, 0) if isinstance(who, str) else who()
        if found is not None:
            steps = f"{found[1]:,} step{'s' * (found[1] != 1)}"
            blame(error, found[0].rstrip(","), f"{doing and ', '}{doing}, after {steps}")
        raise


def check_same(first: EnvironmentSpec, other: EnvironmentSpec, index: int) -> None:
    """Checks that environments played side by side can be.

    Raises:
      EnvironmentFault: observations or actions of environment `index` are not those of the first.
    """
    # Real observations may have any bounds: nothing is made of them.
    for part, kind in (("observations", _whole), ("actions", _bounded)):
        ours, theirs = getattr(first, part), getattr(other, part)
        if jax.tree.map(kind, ours) != jax.tree.map(kind, theirs):
            raise EnvironmentFault(
                f"environment {index}: its {part} must be those of environment 0, {ours}, got "
                f"{theirs}; all environments of a run are alike"
            )


def _kind(spec: Any) -> tuple:
    return tuple(spec.shape), str(spec.dtype), getattr(spec, "num_values", None)


def _bounded(spec: Any) -> tuple:
    """Returns what `_kind` does, and the bounds of each component, where there are any."""
    if not isinstance(spec, specs.BoundedArray):
        return _kind(spec)
    return *_kind(spec), spec.minimum.tolist(), spec.maximum.tolist()


def _whole(spec: Any) -> tuple:
    return _bounded(spec) if np.dtype(spec.dtype).kind in "iu" else _kind(spec)
