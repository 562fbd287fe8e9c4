"""The Behaviour Suite's environments as ours, by names such as "bsuite:catch/0".

Osband et al., 2020, "Behaviour Suite for Reinforcement Learning".
https://github.com/google-deepmind/bsuite
"""

import pathlib
from typing import Any

import dm_env
import numpy as np
from bsuite import bsuite, sweep
from bsuite.environments import bandit, base
from bsuite.logging import base as logging
from bsuite.logging import csv_logging
from bsuite.utils import wrappers
from dm_env import specs

from rlws.environments.names import unknown
from rlws.environments.repeatable import RepeatableEnvironment
from rlws.numerics import streams
from rlws.settings import SettingError
from rlws.types import Action

_LAST = dm_env.StepType.LAST

# Files of records that this process has made, which it may write again.
_written = set[pathlib.Path]()


class BsuiteEnvironment(RepeatableEnvironment):
    """An environment of the suite; its observations are float32, its actions count from 0.

    What an id fixes (which arm of a bandit pays, which action dives) is the same in all runs; what
    is drawn while it is played depends on seed, index and episode. All its ends are terminations,
    as bsuite means them, those by time, too: they are in the observation.

    Attributes:
      num_episodes: how many bsuite's scores are of.
    """

    def __init__(
        self,
        name: str,
        seed: int = 0,
        index: int = 0,
        record: str | None = None,
        training: bool = True,
    ):
        """Makes environment `index` of the run with `seed`.

        Args:
          name: "catch/0", of `bsuite.sweep.SWEEP`, without MNIST.
          record: a folder; in it, the folder "SEED-INDEX" will have the CSV that bsuite's analysis
            reads, once two episodes have ended.
          training: whether there is anything to record; in an evaluation there is not.

        Raises:
          SettingError: an unknown name. Later, of a record: it is there, by another process; or the
            next episode is not the one after the last, as bsuite's totals are of all so far.
        """
        env = _load(name)
        self._draws, self._seed, self._index = _generators(env), seed, index
        longest = _longest(vars(getattr(env, "raw_env", env)))
        self.num_episodes = sweep.EPISODES[name]
        self._recorded = 0 if record is not None and training else None  # episodes begun
        if record is not None and training:
            logger = _Logger(name, pathlib.Path(record, f"{seed}-{index}"))
            env = wrappers.Logging(env, logger)
        self._env: Any = env
        # Ours is what `base.Environment.step` is: called by it, it would be so twice.
        own = type(env).step is base.Environment.step
        self._env_step = env._step if own else env.step
        actions = specs.DiscreteArray(env.action_spec().num_values, np.int32, "action")
        super().__init__(env.observation_spec(), actions, longest, 30.0)  # of films, there are none

    # Not by `begin` and `advance`, which take timesteps apart to make others: bsuite's are right,
    # and a step of it takes a microsecond or two.
    def reset(self) -> dm_env.TimeStep:
        """Begins the next episode; returns its FIRST timestep, reward and discount None."""
        if self._recorded is not None:
            self._count()
        for i, generator in enumerate(self._draws):
            counters = streams.Stream.ENVIRONMENT, self._index, self.episode, i
            generator.seed(streams.host_seed(self._seed, *counters))
        self.episode += 1
        self._restart = False
        return self._env.reset()

    def step(self, action: Action) -> dm_env.TimeStep:
        """Takes `action`; before the first reset and after LAST, begins an episode instead."""
        if self._restart:
            return self.reset()
        timestep = self._env_step(action)
        self._restart = timestep[0] is _LAST
        return timestep

    def _count(self) -> None:
        if self.episode != self._recorded:
            raise SettingError(
                "record: bsuite's totals are of all episodes from the first, so the next must be"
                f" {self._recorded}, got {self.episode}; begin the run anew, or leave record out"
            )
        self._recorded += 1


class _Logger(logging.Logger):
    """bsuite's own, which makes its file with the second row only.

    Whoever only tries an environment for an episode leaves nothing.
    """

    def __init__(self, name: str, folder: pathlib.Path):
        self._name, self._folder, self._rows = name, folder, list[Any]()
        self._logger: Any = None

    def write(self, data: Any) -> None:
        self._rows.append(data)
        if len(self._rows) == 1:
            return
        if self._logger is None:
            self._logger = self._made()
            self._logger.write(self._rows[0])
        self._logger.write(data)

    def _made(self) -> Any:
        overwrite = self._folder / self._name in _written
        try:
            made = csv_logging.Logger(self._name, str(self._folder), overwrite)
        except (ValueError, OSError) as error:
            raise SettingError(f"record: {error}") from error
        _written.add(self._folder / self._name)
        return made


def names() -> list[str]:
    """Returns the names `rlws.environments.make` knows bsuite's ids by."""
    return [f"bsuite:{name}" for name in sweep.SWEEP if not name.startswith("mnist")]


def _load(name: str) -> Any:
    if name.startswith("mnist"):
        raise SettingError(
            f"environment 'bsuite:{name}' is not here, as it would download MNIST; of the same"
            " kind, without pictures, is bsuite:bandit/0"
        )
    if (called := f"bsuite:{name}") not in names():
        known = [one for one in names() if one.startswith(f"{called}/")][:1] or names()
        raise unknown(called, known, "bsuite.sweep.SWEEP lists what bsuite has")
    experiment, _ = bsuite.unpack_bsuite_id(name)
    return bsuite.load(experiment, sweep.SETTINGS[name])


def _generators(env: Any) -> list[np.random.RandomState]:
    """Returns those an environment and its wrappers draw from while it is played."""
    found = []
    while env is not None:
        inside = vars(env)  # not getattr, as wrappers have what they wrap has
        # These two have one, and draw nothing from it.
        if "_rng" in inside and not isinstance(env, bandit.SimpleBandit | wrappers.RewardScale):
            found.append(inside["_rng"])
        env = inside.get("_env")
    return found


def _longest(inside: dict[str, Any]) -> int:
    """Returns how many steps an episode can have, by what is in an environment."""
    lengths = {"_max_steps": 0, "_chain_length": 0, "_episode_len": 0, "_size": 0}
    lengths |= {"_memory_length": 1, "_rows": -1}
    for name, more in lengths.items():
        if name in inside:
            return inside[name] + more
    steps, time = 1, 0.0  # of a bandit
    while "_max_time" in inside and (time := time + inside["_timescale"]) <= inside["_max_time"]:
        steps += 1
    return steps
