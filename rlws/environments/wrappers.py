"""What changes the timesteps of an environment: the same code for both kinds, and in any order.

wrap(make("jax:Catch"), Stack(4), Clip(1.0)), or by name: make("jax:Catch+stack=4+clip=1")
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import TimeStep, specs

from rlws.environments import jax_environment
from rlws.environments.jax_environment import JaxEnvironment
from rlws.environments.repeatable import rate
from rlws.environments.rules import LAST
from rlws.settings import Positive, PositiveInt, Range, SettingError, Settings
from rlws.types import ACTION_MASK, Action, EnvironmentSpec, Key, Observation


class Wrapper(Settings):
    """Changes the timesteps of one episode; a subclass overrides what it changes.

    `xp` is NumPy for an environment stepped from Python, jax.numpy for one written in JAX.
    """

    repeats = 1  # steps of the environment for one of ours; not a setting

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Returns the specs of what comes out.

        Raises:
          SettingError: the wrapper cannot be around an environment with such specs.
        """
        return spec

    def begin(self, observation: Observation, xp: Any) -> tuple[Any, Observation]:
        """Returns the wrapper's state and observation at the beginning of an episode."""
        return (), observation

    def follow(self, state: Any, timestep: TimeStep, xp: Any) -> tuple[Any, TimeStep]:
        """Returns the next state, and what becomes of a MID or LAST timestep."""
        return state, timestep


class Limit(Wrapper):
    """Cuts episodes after so many steps; that is a truncation, so the discount stays."""

    steps: PositiveInt

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Returns the specs, with the smaller one of two limits."""
        own = min(self.steps, spec.max_episode_steps or self.steps)
        return spec._replace(max_episode_steps=own)

    def begin(self, observation: Observation, xp: Any) -> tuple[Any, Observation]:
        """Counts from 0."""
        return xp.int32(0), observation

    def follow(self, state: Any, timestep: TimeStep, xp: Any) -> tuple[Any, TimeStep]:
        """Counts, and makes the last step LAST."""
        kind = xp.where(state + 1 >= self.steps, np.int32(LAST), timestep.step_type)
        return state + 1, timestep._replace(step_type=kind)


class Repeat(Wrapper):
    """Takes each action so many times, or to the end of the episode; rewards are added up."""

    count: PositiveInt

    @property
    def repeats(self) -> int:  # type: ignore[override]
        """Returns the steps of the environment for one of ours."""
        return self.count

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Returns the specs, with the limit in steps of ours and the bounds of sums of rewards."""
        limit, rewards = spec.max_episode_steps, spec.rewards
        if limit is not None:
            limit = math.ceil(limit / self.count)
        if isinstance(rewards, specs.BoundedArray):
            low, high = np.minimum(rewards.minimum, 0), np.maximum(rewards.maximum, 0)
            rewards = rewards.replace(minimum=self.count * low, maximum=self.count * high)
        return spec._replace(max_episode_steps=limit, rewards=rewards)


class Clip(Wrapper):
    """Clips rewards to [-size, size], as Mnih et al. (2015) do; returns are of what is left."""

    size: Positive = 1.0

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Returns the specs, with the bounds of rewards."""
        old = spec.rewards
        rewards = specs.BoundedArray(old.shape, old.dtype, -self.size, self.size, old.name)
        return spec._replace(rewards=rewards)

    def follow(self, state: Any, timestep: TimeStep, xp: Any) -> tuple[Any, TimeStep]:
        """Clips the reward."""
        reward = xp.minimum(xp.maximum(timestep.reward, -self.size), self.size)
        return state, timestep._replace(reward=reward)


class Stack(Wrapper):
    """Lays the last `count` observations side by side along their last axis, the newest last.

    Before an episode's beginning there is its first observation again. Every leaf is stacked but an
    action mask; a picture [H, W, C] becomes [H, W, count * C], a vector [N] becomes [count * N].
    """

    count: Annotated[int, Range(1, 64)]

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Returns the specs of stacked observations."""

        def stacked(path, leaf):
            if isinstance(leaf, specs.DiscreteArray) or not leaf.shape:
                raise SettingError(
                    f"stack: observation{jax.tree_util.keystr(path)} must have an axis to lay it "
                    f"along, got {leaf}; stack pictures and vectors"
                )
            shape = (*leaf.shape[:-1], self.count * leaf.shape[-1])
            if not isinstance(leaf, specs.BoundedArray):
                return leaf.replace(shape=shape)
            bounds = (np.broadcast_to(x, leaf.shape) for x in (leaf.minimum, leaf.maximum))
            low, high = (np.concatenate(self.count * [x], -1) for x in bounds)
            return leaf.replace(shape=shape, minimum=low, maximum=high)

        return spec._replace(observations=_but_masks(stacked, spec.observations))

    def begin(self, observation: Observation, xp: Any) -> tuple[Any, Observation]:
        """Returns the first observation, as often as is stacked."""
        kept = self.count * (jax.tree.map(xp.array, observation),)  # which may be changed later
        return kept[1:], side_by_side(kept, xp)

    def follow(self, state: Any, timestep: TimeStep, xp: Any) -> tuple[Any, TimeStep]:
        """Puts the newest observation to the others and forgets the oldest."""
        kept = (*state, jax.tree.map(xp.array, timestep.observation))
        return kept[1:], timestep._replace(observation=side_by_side(kept, xp))


class Resize(Wrapper):
    """Makes pictures [H, W, C] `size` high and wide; a pixel is the mean of what it covers."""

    size: Annotated[int, Range(1, 4096)] = 84

    def spec(self, spec: EnvironmentSpec) -> EnvironmentSpec:
        """Returns the specs of smaller pictures."""

        def resized(path, leaf):
            if len(leaf.shape) != 3:
                raise SettingError(
                    f"resize: observation{jax.tree_util.keystr(path)} must be a picture "
                    f"[height, width, channels], got {leaf}"
                )
            leaf = leaf.replace(shape=(self.size, self.size, leaf.shape[-1]))
            if not isinstance(leaf, specs.BoundedArray):
                return leaf
            return leaf.replace(minimum=np.min(leaf.minimum), maximum=np.max(leaf.maximum))

        return spec._replace(observations=_but_masks(resized, spec.observations))

    def begin(self, observation: Observation, xp: Any) -> tuple[Any, Observation]:
        """Resizes the first picture."""
        return (), _but_masks(lambda path, x: self._resized(x, xp), observation)

    def follow(self, state: Any, timestep: TimeStep, xp: Any) -> tuple[Any, TimeStep]:
        """Resizes the picture."""
        return state, timestep._replace(observation=self.begin(timestep.observation, xp)[1])

    def _resized(self, picture, xp):
        picture = xp.asarray(picture)
        rows, columns = (_cover(n, self.size) for n in picture.shape[:2])
        small = xp.einsum("hi,ijc->hjc", rows, picture.astype(np.float32))
        small = xp.einsum("wj,hjc->hwc", columns, small)
        if np.issubdtype(picture.dtype, np.floating):
            return small.astype(picture.dtype)
        return xp.rint(small).astype(picture.dtype)


BY_NAME: dict[str, type[Wrapper]] = {
    kind.__name__.lower(): kind for kind in (Limit, Repeat, Clip, Stack, Resize)
}


def wrap(environment: Any, *wrappers: Wrapper) -> Any:
    """Returns the environment, a `JaxEnvironment` or a dm_env one, with wrappers, the inmost first.

    Raises:
      SettingError: a wrapper does not go around what it is put around.
    """
    for wrapper in wrappers:
        kind = Wrapped if isinstance(environment, JaxEnvironment) else DmWrapped
        environment = kind(environment, wrapper)
    return environment


class State(NamedTuple):
    """An environment in a wrapper, in the middle of an episode."""

    inner: Any  # state of the environment
    own: Any  # state of the wrapper


class Wrapped(JaxEnvironment):
    """A JAX environment in a wrapper."""

    environment: JaxEnvironment
    wrapper: Wrapper

    def __post_init__(self):
        super().__post_init__()
        self.spec()

    @property
    def frames_per_second(self) -> float:  # type: ignore[override]
        """Returns those of a film in real time."""
        return self.environment.frames_per_second / self.wrapper.repeats

    def spec(self) -> EnvironmentSpec:
        """Returns the wrapper's specs."""
        return self.wrapper.spec(self.environment.spec())

    def reset(self, key: Key) -> tuple[State, TimeStep]:
        """Begins an episode of both."""
        inner, timestep = self.environment.reset(key)
        own, observation = self.wrapper.begin(timestep.observation, jnp)
        return State(inner, own), timestep._replace(observation=observation)

    def step(self, state: State, action: Action) -> tuple[State, TimeStep]:
        """Takes a step, or as many as the wrapper says."""
        inner, timestep = self.environment.step(state.inner, action)

        def again(carry, _):
            inner, before = carry
            stepped, after = self.environment.step(inner, action)
            return jax.tree.map(
                lambda x, y: jnp.where(before.step_type == LAST, x, y),
                (inner, before),
                (stepped, _added(before, after)),
            ), None

        if more := self.wrapper.repeats - 1:
            (inner, timestep), _ = jax.lax.scan(again, (inner, timestep), length=more)
        own, timestep = self.wrapper.follow(state.own, timestep, jnp)
        return State(inner, own), timestep

    def render(self, state: State) -> Any:
        """Returns the environment's picture, as it is without the wrapper."""
        return self.environment.render(state.inner)


class DmWrapped(dm_env.Environment):
    """A dm_env environment in a wrapper; what is not here is the environment's."""

    def __init__(self, environment: Any, wrapper: Wrapper):
        self._environment, self._wrapper, self._restart = environment, wrapper, True
        self._spec = wrapper.spec(jax_environment.spec(environment))
        self.max_episode_steps = self._spec.max_episode_steps

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_environment":  # not there yet, when it is copied
            raise AttributeError(name)
        return getattr(self._environment, name)

    # Whether there is one says whether the environment can play an episode again.
    @property
    def episode(self) -> int:
        """The number of the environment's next episode."""
        return self._environment.episode

    @episode.setter
    def episode(self, number: int) -> None:
        self._environment.episode = number

    @property
    def frames_per_second(self) -> float:
        """Those of a film in real time."""
        return rate(getattr(self._environment, "frames_per_second", None)) / self._wrapper.repeats

    def reset(self) -> TimeStep:
        """Begins an episode of both."""
        timestep = self._environment.reset()
        self._own, observation = self._wrapper.begin(timestep.observation, np)
        self._restart = False
        return timestep._replace(observation=observation)

    def step(self, action: Action) -> TimeStep:
        """Takes a step, or as many as the wrapper says; after LAST, begins an episode instead."""
        if self._restart:
            return self.reset()
        timestep = self._environment.step(action)
        for _ in range(self._wrapper.repeats - 1):
            if timestep.step_type == LAST:
                break
            timestep = _added(timestep, self._environment.step(action))
        self._own, timestep = self._wrapper.follow(self._own, timestep, np)
        kind = dm_env.StepType(int(timestep.step_type))
        self._restart = kind == LAST
        return timestep._replace(step_type=kind)

    def observation_spec(self) -> Any:
        """Returns the spec of one observation."""
        return self._spec.observations

    def action_spec(self) -> Any:
        """Returns the spec of one action."""
        return self._spec.actions

    def reward_spec(self) -> Any:
        """Returns the spec of the reward."""
        return self._spec.rewards

    def discount_spec(self) -> Any:
        """Returns the spec of the discount."""
        return self._spec.discounts

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()


def side_by_side(kept: Sequence[Observation], xp: Any) -> Observation:
    """Returns observations laid along their last axis; of action masks, the last one's."""
    return _but_masks(lambda path, _, *leaves: xp.concatenate(leaves, -1), kept[-1], *kept)


def _added(before: TimeStep, after: TimeStep) -> TimeStep:
    return after._replace(
        reward=before.reward + after.reward, discount=before.discount * after.discount
    )


def _but_masks(change: Callable, nest: Any, *others: Any) -> Any:
    """Returns the nest with `change(path, leaf, ...)` for its leaves but the action mask."""

    def leaf(path, *leaves):
        mask = any(getattr(part, "key", None) == ACTION_MASK for part in path)
        return leaves[0] if mask else change(path, *leaves)

    return jax.tree.map_with_path(leaf, nest, *others)


@functools.cache
def _cover(old: int, new: int) -> np.ndarray:
    """Returns how much of a new pixel each old one covers, float32 [new, old]; rows sum to 1."""
    edges = np.arange(new + 1) * old / new
    left, right = edges[:-1, None], edges[1:, None]
    pixel = np.arange(old)
    shared = np.minimum(right, pixel + 1) - np.maximum(left, pixel)
    return (np.maximum(shared, 0) / (right - left)).astype(np.float32)
