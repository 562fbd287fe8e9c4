"""Many host environments stepped together: dm_env rows with a leading axis of environments."""

import contextlib
import functools
import inspect
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np

from rlws.environments import checks, jax_environment, processes, resolve
from rlws.environments.actions import legal
from rlws.environments.autoreset import restarting
from rlws.environments.names import check_known, check_settings, parse
from rlws.environments.registry import call, check_new
from rlws.numerics import streams
from rlws.settings import INT, SettingError, choose, importing
from rlws.types import Action, EnvironmentSpec

KINDS = "b", "biuf"  # of arrays of bools, of rewards


def make_vector(
    source: str | Callable[[int, int], Any],
    num_envs: int,
    seed: int = 0,
    vectorization: str = "sync",
    begin: int = 0,
    first: int = 0,
) -> "VectorEnvironment":
    """Returns the `num_envs` environments of the run with `seed`, stepped together.

    Seeds: environment i begins as `GymEnvironment(id, seed, i)` does; its later episodes draw from
    its own generator. "native" environments share one, with the seed of environment 0.

    Args:
      source: "gym:" and an id; "atari:" and a game, for "sync" and "async"; or a function of `seed`
        and `num_envs` that returns a `gymnasium.vector.VectorEnv`, whatever `vectorization` says.
        Observations are its arrays: new ones at every step, unless it was made with copy=False.
      num_envs: B.
      seed: of the run.
      begin: another number gives other episodes of the same run; see `HostTrainer.train`.
      first: the number of the first environment among those of the run.
      vectorization: "sync" steps one environment after the other; "async" gives each a process;
        "native" is gymnasium's `vector_entry_point` of the id; "envpool" is envpool's environment
        of that name, whose discount is 1 at the time limit, even where that step terminates, too.

    Raises:
      SettingError: an unknown name, a missing package, an environment that cannot be stepped so.
    """
    choose("vectorization", vectorization, ("sync", "async", "native", "envpool"))
    if num_envs < 1:
        raise SettingError(f"num_envs must be at least 1, got {num_envs}")
    counters = ((streams.Stream.ENVIRONMENT, i, begin) for i in range(first, first + num_envs))
    seeds = [streams.host_seed(seed, *each) for each in counters]
    if not isinstance(source, str):
        return _made(_checked(source, seed, num_envs), seeds)
    base, settings, wrappers = parse(source)
    prefix, _, identity = base.partition(":")
    atari = prefix == "atari" and vectorization in ("sync", "async")
    if not atari and prefix != "gym":
        raise _not_gymnasium(source, resolve.is_jax(source))
    if wrappers:
        raise SettingError(
            "wrappers must be around environments that are stepped one by one, got vectorization "
            f"{vectorization!r} with {source!r}; use 'serial', or a setting, if there is one such "
            f"as {base},max_episode_steps=500"
        )
    if atari:
        return _atari(base, settings, num_envs, vectorization, seeds)
    if vectorization == "envpool":
        return _envpool(identity, num_envs, seeds, settings)
    return _made(_gymnasium(identity, num_envs, vectorization, settings), seeds)


def _made(envs: Any, seeds: list[int] | None, limit: int | None = None) -> "VectorEnvironment":
    with checks.closed_on_error(envs):
        return VectorEnvironment(envs, seeds, limit)


class VectorEnvironment:
    """B environments stepped together, each with the rows it would have alone.

    Rows are NumPy: `step_type` int32 [B], `reward` and `discount` float32 [B], observation leaves
    [B, ...]. FIRST has reward 0 and discount 1. The discount is 0 where an episode terminates, else
    1, so also where it is truncated. The step after LAST ignores that environment's action and is
    FIRST. Written for speed: a handful of NumPy calls a step, however many environments.

    Attributes:
      num_envs: B.
      spec: of one environment.
      info: what gymnasium gave as such with the last step.
    """

    info: dict[str, Any]

    def __init__(self, envs: Any, seeds: list[int] | None, limit: int | None = None):
        from gymnasium import vector  # slow to import, and not always needed

        from rlws.environments import gymnasium_spaces as spaces

        several = isinstance(envs.unwrapped, vector.SyncVectorEnv | vector.AsyncVectorEnv)
        self._vector: Any = envs.unwrapped
        self._in_processes = isinstance(envs.unwrapped, vector.AsyncVectorEnv)
        if limit is None:
            registered = envs.spec or (envs.unwrapped.get_attr("spec")[0] if several else None)
            limit = getattr(registered, "max_episode_steps", None)
        observations, actions = envs.single_observation_space, envs.single_action_space
        self._envs, self._seed = restarting(envs), seeds if several or not seeds else seeds[0]
        self._observe = spaces.from_gymnasium(observations)
        self._act = spaces.to_gymnasium(actions, batch=True)
        self.num_envs = envs.num_envs
        self.spec = EnvironmentSpec(
            observations=spaces.to_spec(observations, "observation"),
            actions=spaces.to_spec(actions, "action"),
            max_episode_steps=limit,
        )

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode in every environment; returns their FIRST rows."""
        seed, self._seed = self._seed, None  # seeded again, they would repeat their episodes
        found, self.info = self._envs.reset(seed=seed), {}
        if not (isinstance(found, tuple) and len(found) == 2):
            raise checks.not_gymnasiums("reset", found)
        self._live = np.ones(self.num_envs, bool)  # which ones will take their next action
        step_type = np.full(self.num_envs, dm_env.StepType.FIRST, np.int32)
        reward, discount = np.zeros(self.num_envs, np.float32), np.ones(self.num_envs, np.float32)
        return dm_env.TimeStep(step_type, reward, discount, self._observe(found[0]))

    def step(self, actions: Action) -> dm_env.TimeStep:
        """Takes actions that conform to the spec, leaves [B, ...]; returns the next rows."""
        try:
            found = self._envs.step(self._act(actions))
        except (OSError, EOFError) as error:
            gone = processes.gone(self._vector) if self._in_processes else None
            raise (gone or error) from error
        if not (isinstance(found, tuple) and len(found) == 5):
            raise checks.not_gymnasiums("step", found)
        observation, *flat, self.info = found
        reward, terminated, truncated = flat = [*map(np.asarray, flat)]
        if any(x.shape != self._live.shape or x.dtype.kind not in KINDS[x is reward] for x in flat):
            got = ", ".join(f"{x.dtype}{[*x.shape]}" for x in flat)
            raise checks.EnvironmentFault(
                f"step must return {self.num_envs} numbers as rewards, and as many bools as "
                f"terminated and as truncated, got {got}; mend the environments"
            )
        last, live = terminated | truncated, self._live
        self._live = ~last
        return dm_env.TimeStep(
            np.add(live, last, dtype=np.int32),  # FIRST 0, MID 1, LAST 2
            np.multiply(live, reward, dtype=np.float32),
            np.logical_not(terminated).astype(np.float32),
            self._observe(observation),
        )

    def said(self, names: tuple[str, ...]) -> np.ndarray:
        """Returns numbers that the environments said with the last step, float32 [B, k].

        NaN of what one did not say.
        """
        columns = np.full((self.num_envs, len(names)), np.nan, np.float32)
        for i, name in enumerate(names):
            found = np.asarray(self.info.get(name))
            if found.shape == self._live.shape and found.dtype.kind in KINDS[1]:
                columns[:, i] = np.where(self.info.get(f"_{name}", True), found, np.nan)
        return columns

    def culprit(self, error: BaseException) -> int | None:
        """Returns which environment raised an error in `step`; None: nobody can tell."""
        if self._in_processes:  # gymnasium closes the pipe to the one it raises the error of
            closed = [i for i, pipe in enumerate(self._vector.parent_pipes) if pipe is None]
            return closed[-1] if closed else None
        for frame, _ in traceback.walk_tb(error.__traceback__):
            # gymnasium's loop over its environments, where there is one.
            if frame.f_locals.get("self") is self._vector and "i" in frame.f_locals:
                return frame.f_locals["i"]
        return None

    def close(self) -> None:
        """Frees what the environments hold, such as processes."""
        if self._in_processes and not self._vector.closed:
            processes.close(self._vector)
        else:
            self._envs.close()


def _checked(source: Any, seed: int, num_envs: int) -> Any:
    from gymnasium.vector import VectorEnv

    from rlws.environments.gymnasium_adapter import GymEnvironment

    began = call()
    envs = source if isinstance(source, jax_environment.JaxEnvironment) else source(seed, num_envs)
    with checks.closed_on_error(envs):
        if not isinstance(envs, VectorEnv):
            raise _not_gymnasium(source, isinstance(envs, jax_environment.JaxEnvironment))
        if envs.num_envs != num_envs:
            raise SettingError(f"num_envs must be {num_envs}, got {envs.num_envs} from {source!r}")
        for one in (envs, *getattr(envs.unwrapped, "envs", ())):
            check_new(one, source, began)
        if num_envs > 1 and (makers := getattr(envs.unwrapped, "env_fns", ())):
            again = call()
            check_new(tried := makers[0](), source, again)
            _try(GymEnvironment(tried), "environment 0")
    return envs


def _not_gymnasium(source: Any, is_jax: bool) -> SettingError:
    remedy = "use gym:CartPole-v1, say, or a function that returns a gymnasium.vector.VectorEnv"
    if is_jax:
        remedy = "as it is written in JAX, use the DeviceTrainer, which vectorises it"
    return SettingError(f"vector environments must be gymnasium's, got {source!r}; {remedy}")


def _try(one: Any, name: str) -> None:
    """Says, of one environment, what it returns that it must not: gymnasium, joining it, casts."""
    who = f"{name}, when it is tried"
    with contextlib.closing(one), checks.named(who):
        spec = jax_environment.spec(one)
        checks.check_first(spec, one.reset(), who)
        checks.check_timestep(spec, one.step(legal(spec.actions)), who)


def _gymnasium(identity: str, num_envs: int, vectorization: str, settings: dict) -> Any:
    import gymnasium

    from rlws.environments.gymnasium_adapter import GymEnvironment
    from rlws.environments.gymnasium_ids import registered

    _try(GymEnvironment(identity, **settings), f"gym:{identity}")
    known = registered(identity, settings)
    if vectorization == "native":
        # Those of phys2d stand still whenever one of them restarts.
        if known.vector_entry_point is None or known.namespace == "phys2d":
            raise SettingError(
                "vectorization 'native' needs an environment with a (working) vector_entry_point,"
                f" got 'gym:{identity}'; use 'sync' or 'async'"
            )
        return gymnasium.make_vec(known, num_envs, "vector_entry_point")
    return processes.make(known, f"gym:{identity}", num_envs, vectorization)


def _atari(
    name: str, settings: dict, num_envs: int, vectorization: str, seeds: list[int]
) -> VectorEnvironment:
    from gymnasium.wrappers import TimeLimit

    with importing(f"environment {name!r}", "atari"):
        from rlws.environments import atari_adapter

    game = name.partition(":")[2]
    known = inspect.signature(functools.partial(atari_adapter.spec, game)).parameters
    check_settings(f"{name}, stepped together,", settings, known)
    _try(atari_adapter.AtariEnvironment(game, **settings), name)
    found, limit = atari_adapter.spec(game, **settings)
    limited = functools.partial(TimeLimit, max_episode_steps=limit)
    envs = processes.make(found, name, num_envs, vectorization, [limited])
    return _made(envs, seeds, limit)


def _envpool(identity: str, num_envs: int, seeds: list[int], settings: dict) -> VectorEnvironment:
    with importing("vectorization 'envpool'", "envpool"):
        import envpool
    names = [f"gym:{name}" for name in envpool.list_all_envs()]
    check_known(f"gym:{identity}", names, "envpool.list_all_envs() lists what envpool has")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium's, about bounds it rounds to float32
        known = envpool.make_spec(identity).config._asdict()
        check_settings(f"gym:{identity}", settings, known)
        several = dict(env_type="gymnasium", num_envs=num_envs, seed=seeds)
        envs = envpool.make(identity, **several, **settings)
        limit = envs.config["max_episode_steps"]
        return _made(envs, None, limit if limit < INT else None)
