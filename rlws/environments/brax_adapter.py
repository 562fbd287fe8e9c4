"""brax's environments as ours, by names such as "brax:ant".

Freeman et al., 2021, "Brax: A Differentiable Physics Engine for Large Scale Rigid Body Simulation".
https://github.com/google/brax
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from rlws.environments import jax_environment, opengl
from rlws.environments.names import check_known
from rlws.settings import PositiveInt, SettingError
from rlws.types import Action, Array, EnvironmentSpec, Key


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within it, nobody says that brax and JAXopt are no longer tended, or that warp is missing."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _import() -> tuple[Any, Any]:
    with _quiet():
        import mujoco
        from brax import envs

    return mujoco, envs


_mujoco, _envs = opengl.imported(_import)

# "fast" is for brax's own tests, without physics; "swimmer" asks jax.numpy.clip for an `a_min` that
# it no longer has.
_LEFT_OUT = frozenset({"fast", "swimmer"})


class State(NamedTuple):
    """An environment in the middle of an episode."""

    inner: Any  # brax's state
    time: Array  # int32 [], steps taken


class _Made(NamedTuple):
    env: Any  # brax's environment
    spec: Any  # of an observation
    frames_per_second: float


class BraxEnvironment(jax_environment.JaxEnvironment):
    """The environment that brax has by this name; all its numbers are float32.

    Actions are within [-1, 1], which brax scales to what the actuators take. An unhealthy state
    ends an episode with discount 0, the time limit with discount 1.

    Raises:
      SettingError: brax has nothing by this name, or not on this backend.
    """

    name: str  # such as ant
    backend: Literal["generalized", "positional", "spring", "mjx"] = "generalized"  # the physics
    max_episode_steps: PositiveInt = 1000

    def __post_init__(self):
        super().__post_init__()
        made = _made(self.name, self.backend)
        object.__setattr__(self, "frames_per_second", made.frames_per_second)

    def spec(self) -> EnvironmentSpec:
        """Returns the specs of what brax observes and of its actuators."""
        env, observations, _ = _made(self.name, self.backend)
        actions = specs.BoundedArray((env.action_size,), np.float32, -1.0, 1.0, "action")
        return EnvironmentSpec(observations, actions, max_episode_steps=self.max_episode_steps)

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode."""
        inner = jax_environment.strong(_made(self.name, self.backend).env.reset(key))
        return State(inner, jnp.int32(0)), jax_environment.first(inner.obs)

    def step_with_info(self, state: State, action: Action) -> jax_environment.Told:
        """Takes a step of brax's environment itself, without the wrapper that restarts it.

        Returns brax's metrics, too.
        """
        env, time = _made(self.name, self.backend).env, state.time + 1
        # A new tree, as brax writes into the dictionaries of the state that it is given.
        inner = jax_environment.strong(env.step(jax_environment.strong(state.inner), action))
        truncated = time >= self.max_episode_steps
        timestep = jax_environment.following(inner.obs, inner.reward, inner.done > 0, truncated)
        return State(inner, time), timestep, inner.metrics

    def render(self, state: State) -> np.ndarray:
        """Returns MuJoCo's picture from the model's first camera, uint8 [480, 640, 3].

        Raises:
          SettingError: there is no OpenGL.
        """
        env = _made(self.name, self.backend).env
        model = env.sys.mj_model
        camera = model.camera(0).name if model.ncam else None
        try:
            [picture] = env.render([state.inner.pipeline_state], 480, 640, camera)
        except Exception as error:
            raise opengl.no_picture(error) from error
        return picture


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows brax's environments by."""
    return [f"brax:{name}" for name in _known()]


def _known() -> list[str]:
    return [name for name in _envs._envs if name not in _LEFT_OUT]  # they have no other name


@functools.cache
def _made(name: str, backend: str) -> _Made:
    """Returns brax's environment and the spec of its observations; the same in every trace."""
    check_known(f"brax:{name}", names(), "rlws.environments.available() lists the names")
    _mujoco.set_mju_user_warning(lambda text: None)  # it writes a file where one works
    try:
        with jax.ensure_compile_time_eval(), _quiet():  # it computes its bodies with JAX
            env = _envs.get_environment(name, backend=backend)
            rate = round(1 / float(env.dt), 3)  # dt is float32
    except ValueError as error:
        raise SettingError(
            f"environment 'brax:{name}': brax does not have it with backend={backend!r}"
            f" ({error}); try 'generalized'"
        ) from error
    finally:
        _mujoco.set_mju_user_warning(None)
    with _quiet():
        shapes = jax.eval_shape(env.reset, jax.random.key(0)).obs
    spec = jax.tree.map(lambda x: specs.Array(x.shape, np.float32, "observation"), shapes)
    return _Made(env, spec, rate)
