"""The games of the Arcade Learning Environment as ours, by names such as "atari:Pong".

Machado et al., 2018, "Revisiting the Arcade Learning Environment: Evaluation Protocols and Open
Problems for General Agents". https://ale.farama.org
"""

import dataclasses
from functools import partial
from typing import Any

import ale_py
import cv2  # noqa: F401  (gymnasium's wrapper needs it, and would say so only when it is made)
import dm_env
import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from rlws.environments.gymnasium_adapter import GymEnvironment
from rlws.environments.names import check_known
from rlws.settings import SettingError
from rlws.types import Action, Observation

ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # it greets whoever starts it

FRAMES = 108_000  # of an episode: half an hour at 60 Hz

# gymnasium's registry, which ale_py adds to, leaves out the games for two players.
_GAMES = {
    identity.removeprefix("ALE/").removesuffix("-v5"): registered
    for identity, registered in gymnasium.registry.items()
    if registered.namespace == "ALE" and identity.endswith("-v5")
}


class AtariEnvironment(GymEnvironment):
    """A game as Machado et al. (2018) play it, seen in grey, one picture uint8 [84, 84, 1] a step.

    Each pixel is the larger of its values in the last two frames. Rewards are the game's points.
    The last observation of a game that is over is the one before it again. With `sticky=0.0,
    full_actions=False, noops=30, life_loss=True` it is the protocol of Mnih et al. (2015), but that
    a lost life, which has discount 0, does not end the episode: it is a MID row.
    """

    def __init__(
        self,
        game: str,
        seed: int = 0,
        index: int = 0,
        sticky: float = 0.25,
        full_actions: bool = True,
        noops: int = 0,
        life_loss: bool = False,
        frame_skip: int = 4,
        mode: int | None = None,
        difficulty: int | None = None,
        max_episode_steps: int | None = None,
    ):
        """Makes environment `index` of the run with `seed`.

        Args:
          game: such as "Pong"; `names` lists them.
          sticky: probability that a frame repeats the action of the frame before, in [0, 1).
          full_actions: whether there are all actions, 18 (in Skiing and LostLuggage 9), or those
            that do something.
          noops: largest number of frames played without action before an episode; 0 for none.
          life_loss: whether the discount is 0 where a life is lost.
          frame_skip: frames an action is held for.
          mode: of the game, a switch of the console; None for its first.
          difficulty: of the game, likewise.
          max_episode_steps: replaces the limit of 108,000 frames; both truncate.

        Raises:
          SettingError: an unknown game, a setting out of its range.
        """
        found, limit = spec(game, sticky, full_actions, noops, frame_skip, max_episode_steps)
        make = partial(gymnasium.make, found, render_mode="rgb_array", disable_env_checker=True)
        try:
            env: Any = make(mode=mode, difficulty=difficulty)
        except RuntimeError as error:
            known: Any = make().unwrapped
            raise SettingError(
                f"mode must be one of {known.ale.getAvailableModes()} and difficulty one of"
                f" {known.ale.getAvailableDifficulties()}, got {mode} and {difficulty} ({error})"
            ) from error
        self._ale = env.unwrapped.ale
        super().__init__(_Cheap(env), seed, index, max_episode_steps=limit)
        self.frames_per_second = 60 / frame_skip
        self._life_loss, self._lives = life_loss, 0

    def begin(self) -> Observation:
        observation = super().begin()
        self._lives = self._ale.lives()
        return observation

    def advance(self, action: Action) -> dm_env.TimeStep:
        timestep = super().advance(action)
        if self._life_loss:
            before, self._lives = self._lives, self._ale.lives()
            if self._lives < before:
                return timestep._replace(discount=0.0)
        return timestep


class _Cheap(gymnasium.Wrapper):
    """Begins episodes from a copy of the console, seeded; ALE, to be seeded, loads the game anew.

    All that is random in an episode is drawn by gymnasium's wrappers. What the console itself draws
    when it is switched on is in the copy, as that may depend on episodes before.
    """

    def __init__(self, env: Any):
        super().__init__(env)
        self._console = env.unwrapped
        self._console.seed_game(0)
        self._console.load_game()
        self._copy = self._console.clone_state(include_rng=True)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        self._console.restore_state(self._copy)
        if seed is not None:
            self._console.seed_game(seed)
        return self.env.reset(options=options)


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows ALE's games for one player by."""
    return [f"atari:{game}" for game in _GAMES]


def spec(
    game: str,
    sticky: float = 0.25,
    full_actions: bool = True,
    noops: int = 0,
    frame_skip: int = 4,
    max_episode_steps: int | None = None,
) -> tuple[EnvSpec, int]:
    """Returns what gymnasium makes a game of, without its time limit, and that limit.

    It is of the steps with skipped frames, so it goes around what is made.

    Raises:
      SettingError: an unknown game, a setting out of its range.
    """
    check_known(f"atari:{game}", names(), "rlws.environments.available() lists the games")
    if not 0 <= sticky < 1:
        raise SettingError(f"sticky must be in [0, 1), got {sticky}; Machado et al. use 0.25")
    if noops < 0:
        raise SettingError(f"noops must be at least 0, got {noops}; Mnih et al. use 30")
    if frame_skip < 1:
        raise SettingError(f"frame_skip must be at least 1, got {frame_skip}; 4 is usual")
    game_settings = dict(
        game=_GAMES[game].kwargs["game"],
        obs_type="grayscale",
        frameskip=1,  # the wrapper skips
        repeat_action_probability=0.0,
        full_action_space=full_actions,
    )
    # ALE's own sticky actions draw from a generator that is seeded only when a game is loaded.
    held = dict(repeat_action_probability=sticky)
    seen = dict(noop_max=noops, frame_skip=frame_skip, grayscale_newaxis=True)
    wrappers = (
        WrapperSpec("StickyAction", "gymnasium.wrappers:StickyAction", held),
        WrapperSpec("AtariPreprocessing", "gymnasium.wrappers:AtariPreprocessing", seen),
    )
    found = dataclasses.replace(
        _GAMES[game],
        kwargs=game_settings,
        order_enforce=False,
        additional_wrappers=wrappers if sticky else wrappers[1:],
    )
    return found, FRAMES // frame_skip if max_episode_steps is None else max_episode_steps
