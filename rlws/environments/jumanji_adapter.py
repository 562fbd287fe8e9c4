"""jumanji's environments for one agent as ours, by names such as "jumanji:Snake-v1".

Bonnet et al., 2024, "Jumanji: a Diverse Suite of Scalable Reinforcement Learning Environments in
JAX". https://github.com/instadeepai/jumanji
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import jumanji
import numpy as np
from dm_env import specs
from jumanji.viewer import MatplotlibViewer

from rlws.environments import jax_environment
from rlws.environments.names import unknown
from rlws.settings import PositiveInt, SettingError, choose
from rlws.types import ACTION_MASK, Action, Array, EnvironmentSpec, Key

_SEVERAL = (
    *("Cleaner", "Connector", "LevelBasedForaging", "MMST", "MultiCVRP", "RobotWarehouse"),
    "SearchAndRescue",
)
_REFUSED = {
    **dict.fromkeys(_SEVERAL, "moves several agents at once"),
    "JobShop": "has an action mask for each of its ten machines",
    "Sokoban": "downloads its levels when it is made",
}


class State(NamedTuple):
    """An environment in the middle of an episode."""

    inner: Any  # jumanji's state, with a key of the episode
    time: Array  # int32 [], steps taken


class JumanjiEnvironment(jax_environment.JaxEnvironment):
    """The environment that jumanji has by this name; ends and discounts are jumanji's own.

    Observations are dictionaries of jumanji's entries, in its types. Actions are one number each:
    where jumanji takes several numbers they are counted in row-major order, as is `action_mask`.

    Raises:
      SettingError: jumanji has nothing by this name, or it is not for an agent alone, or has no
        such entries in its observations.
    """

    frames_per_second = 5

    name: str  # such as Snake-v1
    # Entries of observations to keep beside the action mask; (): all
    observe: tuple[str, ...] = ()
    # Truncates, in place of jumanji's own limit if it has one; None: that one, which terminates
    max_episode_steps: PositiveInt | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.observe:
            entries = self._made().observation_spec._specs.keys() - {ACTION_MASK}
            for entry in self.observe:
                choose(f"{self.name}: observe", entry, sorted(entries))
        self.spec()

    def spec(self) -> EnvironmentSpec:
        """Returns the specs; the time limit is that of jumanji where none is given."""
        env = self._made()
        observations = self._chosen(_to_spec(env.observation_spec, "observation"))
        limit = getattr(env, "time_limit", None)
        if ACTION_MASK in observations:
            count = math.prod(observations[ACTION_MASK].shape)
            observations[ACTION_MASK] = specs.BoundedArray((count,), bool, False, True, ACTION_MASK)
        return EnvironmentSpec(
            observations=observations,
            actions=specs.DiscreteArray(math.prod(_counts(env)), np.int32, "action"),
            max_episode_steps=self.max_episode_steps or limit,
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode."""
        inner, timestep = self._made().reset(jax.random.key_data(key))
        first = jax_environment.first(self._observe(timestep.observation))
        return State(jax_environment.strong(inner), jnp.int32(0)), first

    def step_with_info(self, state: State, action: Action) -> jax_environment.Told:
        """Takes a step of jumanji's; returns its extras, too."""
        env, time = self._made(), state.time + 1
        if len(counts := _counts(env)) > 1:
            action = jnp.stack(jnp.unravel_index(action, counts)).astype(jnp.int32)
        inner, timestep = env.step(state.inner, action)
        ended, terminated = timestep.last(), timestep.last() & (timestep.discount == 0)
        if self.max_episode_steps is not None:
            ended |= time >= self.max_episode_steps
        observation = self._observe(timestep.observation)
        following = jax_environment.following(observation, timestep.reward, terminated, ended)
        return State(jax_environment.strong(inner), time), following, timestep.extras or {}

    def render(self, state: State) -> np.ndarray:
        """Returns jumanji's picture, uint8 [480, 480, 3]."""
        env = self._made()
        viewer: Any = next(x for x in vars(env).values() if isinstance(x, MatplotlibViewer))
        # As its viewers do in mode "rgb_array", which each environment's class would choose anew.
        viewer.figure_size, viewer._display = (4.8, 4.8), viewer._display_rgb_array
        viewer._get_fig_ax = functools.partial(type(viewer)._get_fig_ax, viewer, show=False)
        return viewer.render(jax.tree.map(jnp.asarray, state.inner))[..., :3].copy()

    def _observe(self, observation: Any) -> dict[str, Any]:
        found = jax_environment.strong(self._chosen(_to_dict(observation)))
        if ACTION_MASK in found:
            found[ACTION_MASK] = found[ACTION_MASK].ravel()
        return found

    def _chosen(self, entries: dict[str, Any]) -> dict[str, Any]:
        wanted = {ACTION_MASK, *(self.observe or entries)}
        return {name: x for name, x in entries.items() if name in wanted}

    def _made(self) -> Any:
        return _made(self.name, self.max_episode_steps)


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows jumanji's environments by."""
    registered = sorted(jumanji.registered_environments())
    return [f"jumanji:{name}" for name in registered if _base(name) not in _REFUSED]


@functools.cache
def _made(name: str, limit: int | None) -> Any:
    """Returns jumanji's environment; the same one in every trace."""
    if name not in jumanji.registered_environments():
        remedy = "jumanji.registered_environments() says what jumanji has"
        raise unknown(f"jumanji:{name}", names(), remedy)
    if _base(name) in _REFUSED:
        raise SettingError(
            f"environment must be for an agent alone, got 'jumanji:{name}', which "
            f"{_REFUSED[_base(name)]}; rlws.environments.available() lists those that are"
        )
    with jax.ensure_compile_time_eval():  # jumanji computes with JAX when it makes one
        env: Any = jumanji.make(name)
        if limit is not None and hasattr(env, "time_limit"):
            env = jumanji.make(name, time_limit=limit + 1)  # which is never reached
    return env


def _base(name: str) -> str:
    return name.rpartition("-v")[0]


def _counts(env: Any) -> tuple[int, ...]:
    """Returns how many values each of the numbers in an action has."""
    return tuple(np.atleast_1d(np.asarray(env.action_spec.num_values)).tolist())


def _to_spec(spec: Any, name: str) -> Any:
    if not isinstance(spec, jumanji.specs.Array):
        return {key: _to_spec(part, f"{name}/{key}") for key, part in spec._specs.items()}
    dtype = np.dtype(spec.dtype)
    if not isinstance(spec, jumanji.specs.BoundedArray):
        return specs.Array(spec.shape, dtype, name)
    low, high = np.asarray(spec.minimum), np.asarray(spec.maximum)
    if isinstance(spec, jumanji.specs.DiscreteArray) and name.endswith("/step_count"):
        high = high + 1  # of the last step, which jumanji's spec leaves out
    return specs.BoundedArray(spec.shape, dtype, low, high, name)


def _to_dict(nest: Any) -> Any:
    """Returns a nest of named tuples and dataclasses as dictionaries."""
    if isinstance(nest, tuple) and hasattr(nest, "_asdict"):
        nest = nest._asdict()
    elif dataclasses.is_dataclass(nest):
        nest = {field.name: getattr(nest, field.name) for field in dataclasses.fields(nest)}
    return {key: _to_dict(x) for key, x in nest.items()} if isinstance(nest, dict) else nest
