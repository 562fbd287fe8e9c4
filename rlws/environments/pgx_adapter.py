"""pgx's games for one player as ours: MinAtar's five, such as "pgx:minatar-breakout", and 2048.

Koyamada et al., 2023, "Pgx: Hardware-Accelerated Parallel Game Simulators for Reinforcement
Learning". https://github.com/sotetsuk/pgx
Young and Tian, 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible
Reinforcement Learning Experiments". https://github.com/kenjyoung/MinAtar
"""

import functools
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pgx
from dm_env import specs

from rlws.environments import jax_environment
from rlws.environments.names import unknown
from rlws.numerics import streams
from rlws.settings import Fraction, PositiveInt, SettingError
from rlws.types import Action, Array, EnvironmentSpec, Key, Observation

_PIXELS = 16  # side of a cell of MinAtar in a picture
_MINATAR = "minatar-"


class State(NamedTuple):
    """A game in the middle of an episode."""

    inner: Any  # pgx's state
    key: Key  # of the episode, uint32 [2]
    time: Array  # int32 [], steps taken


class PgxEnvironment(jax_environment.JaxEnvironment):
    """The game that pgx has by this name; discount 0 where pgx says that it is terminated.

    Observations of MinAtar are float32 [10, 10, channels], 0 and 1, as gymnax's. Those of 2048 have
    an `action_mask`, bool [4], beside the board, float32 [4, 4, 31], one-hot in the exponent of
    each tile; an illegal action ends the game with reward -1.

    Raises:
      SettingError: pgx has nothing by this name, or it takes several players, or is no MinAtar and
        shall get settings of MinAtar.
    """

    frames_per_second = 10

    name: str  # such as minatar-breakout
    # Probability that MinAtar takes its last action instead; None: pgx's own, 0.1
    sticky: Fraction | None = None
    all_actions: bool = False  # MinAtar's 6, also those that do nothing in this game
    max_episode_steps: PositiveInt | None = None  # truncates; pgx itself truncates nothing

    def __post_init__(self):
        super().__post_init__()
        self._made()

    def spec(self) -> EnvironmentSpec:
        """Returns the specs, of what pgx's first state consists of."""
        _, state = self._made()
        shape, count = state.observation.shape, len(state.legal_action_mask)
        observations: Any = specs.BoundedArray(shape, np.float32, 0, 1, "observation")
        if not self.name.startswith(_MINATAR):
            mask = specs.BoundedArray((count,), bool, False, True, "action_mask")
            observations = {"action_mask": mask, "board": observations}
        return EnvironmentSpec(
            observations=observations,
            actions=specs.DiscreteArray(count, np.int32, "action"),
            max_episode_steps=self.max_episode_steps,
        )

    def reset(self, key: Key) -> tuple[State, dm_env.TimeStep]:
        """Begins an episode."""
        reset_key, step_key = jax.random.split(key)
        inner = self._made()[0].init(reset_key)
        state = State(inner, jax.random.key_data(step_key), jnp.int32(0))
        return state, jax_environment.first(self._observe(inner))

    def step(self, state: State, action: Action) -> tuple[State, dm_env.TimeStep]:
        """Takes a step of pgx's, with a key of its own."""
        key = streams.draw(state.key, 0, state.time)
        inner, time = self._made()[0].step(state.inner, action, key), state.time + 1
        limit = self.max_episode_steps
        truncated = inner.truncated if limit is None else inner.truncated | (time >= limit)
        timestep = jax_environment.following(
            self._observe(inner), inner.rewards[0], inner.terminated, truncated
        )
        return State(inner, state.key, time), timestep

    def render(self, state: State) -> np.ndarray:
        """Returns a picture, uint8 [160, 160, 3], of MinAtar in pgx's colours."""
        seen = np.asarray(state.inner.observation)
        return _cells(seen) if self.name.startswith(_MINATAR) else _tiles(seen.argmax(-1))

    def _observe(self, inner: Any) -> Observation:
        x = inner.observation.astype(jnp.float32)
        if self.name.startswith(_MINATAR):
            return x
        return {"action_mask": inner.legal_action_mask, "board": x}

    def _made(self) -> tuple[Any, Any]:
        return _made(self.name, self.sticky, self.all_actions)


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows pgx's games for one player by."""
    alone = lambda name: name == "2048" or name.startswith(_MINATAR)
    return [f"pgx:{name}" for name in pgx.available_envs() if alone(name)]


@functools.cache
def _made(name: str, sticky: float | None, all_actions: bool) -> tuple[Any, Any]:
    """Returns pgx's game and the shapes of its state; the same ones in every trace."""
    if name not in pgx.available_envs():
        raise unknown(f"pgx:{name}", names(), "pgx.available_envs() lists what pgx has")
    if f"pgx:{name}" not in names():
        raise SettingError(
            f"environment must be a game for one player, got 'pgx:{name}', which takes more; "
            f"pgx has {', '.join(names())}"
        )
    with jax.ensure_compile_time_eval():  # pgx computes with JAX when it is imported
        env: Any = pgx.make(name)
        if name.startswith(_MINATAR):
            chosen = {} if sticky is None else {"sticky_action_prob": sticky}
            env = type(env)(use_minimal_action_set=not all_actions, **chosen)
        elif sticky is not None or all_actions:
            raise SettingError(
                f"sticky must be None and all_actions False for 'pgx:{name}', got {sticky} and "
                f"{all_actions}; they are settings of MinAtar's games"
            )
    return env, jax.eval_shape(env.init, jax.random.key(0))


def _cells(seen: np.ndarray) -> np.ndarray:
    """Returns a picture of what MinAtar shows; the last channel covers those before it."""
    from pgx.minatar.utils import get_cmap

    count = seen.shape[-1]
    colours = np.multiply([(0, 0, 0), *get_cmap(count)], 255).astype(np.uint8)
    top = (seen * np.arange(1, count + 1)).max(axis=-1)
    return colours[top].repeat(_PIXELS, axis=0).repeat(_PIXELS, axis=1)


def _tiles(exponents: np.ndarray) -> np.ndarray:
    """Returns a picture of 2048's board; pgx's own are SVG, which nothing here makes pixels of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6, 1.6), dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(exponents, "YlOrBr", vmin=0, vmax=17)
    for (row, column), exponent in np.ndenumerate(exponents):
        if exponent:
            number = str(2**exponent)
            axes.text(column, row, number, ha="center", va="center", fontsize=9)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
