"""A trained agent, loaded from the folder of its run, to act with in a notebook or elsewhere."""

import contextlib
import pathlib
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from rlws import environments, sources
from rlws.agent import Agent
from rlws.environments import resolve, rules
from rlws.numerics import checkpoint, trees
from rlws.runs.experiment import Experiment
from rlws.runs.film import Film, Picture, film
from rlws.runs.folders import check_settings, experiment_of, saved
from rlws.settings import SettingError, choose, describe
from rlws.tracking import plot_run, read_metrics
from rlws.tracking.stderr import warn
from rlws.trainers import core, evaluation, initial
from rlws.types import EnvironmentSpec, Params


def load(
    directory: str | pathlib.Path, at: int | str | None = None, trust: bool = False
) -> "Policy":
    """Returns the policy of a run, as evaluation plays it.

    Args:
      directory: of the run, or of a member of a sweep.
      at: the newest checkpoint not beyond this step, or "best"; by default the newest.
      trust: import what made the run, also where it is not installed and you never ran it here.

    Raises:
      SettingError: there is no run, or no whole checkpoint of it.
    """
    path = pathlib.Path(directory)
    with sources.trusting(trust):
        experiment = experiment_of(path)
    found = saved(path, warn, at)
    for text in check_settings(describe(experiment), found):
        warn(f"{path}: {text}")
    agent, spec = made(experiment)
    like = jax.eval_shape(lambda: agent.learner.init(initial.seed_key()).params)
    params = trees.restore(like, found.arrays, _params_path(found, path))
    return Policy(agent, jax.tree.map(jax.numpy.asarray, params), spec, experiment, found)


def made(experiment: Experiment) -> tuple[Agent, EnvironmentSpec]:
    """Returns the agent of an experiment, and what it was made for."""
    found = resolve.host(experiment.environment, experiment.seed, 0)
    with contextlib.closing(found) as environment:
        spec = environments.spec(environment)
    return experiment.agent.make(spec), spec


def _params_path(found: checkpoint.Checkpoint, path: pathlib.Path) -> str:
    for place in ("state/learner/params", "run/state/learner/params"):
        if trees.below(found.arrays, place):
            if found.facts.get("members", 1) > 1:
                raise SettingError(
                    f"{path} holds {found.facts['members']} runs; name one of the folders in it"
                )
            return place
    raise SettingError(f"{found.path} holds no parameters of a learner")


class Policy:
    """Acts on observations, one environment at a time.

        policy = rlws.load("results/cartpole_ppo/run")
        action = policy(observation)

    Attributes:
      agent, params, spec, experiment: what was loaded.
      checkpoint: from where.
    """

    def __init__(
        self,
        agent: Agent,
        params: Params,
        spec: EnvironmentSpec,
        experiment: Any,
        found: checkpoint.Checkpoint,
    ):
        self.agent, self.params, self.spec, self.experiment = agent, params, spec, experiment
        self.checkpoint = found
        self._compile()
        self._episode = self._step = 0
        self.reset()

    def _compile(self):
        self._key, _ = evaluation.keys(self.experiment.seed)
        evaluator = self.agent.evaluator
        self._act = jax.jit(lambda *args: core.act(evaluator, *args)[:2])

    def __getstate__(self):
        # Networks are functions, which do not travel to other processes; what makes them does.
        left = "agent", "_key", "_act"
        return {name: x for name, x in vars(self).items() if name not in left}

    def __setstate__(self, state):
        vars(self).update(state)
        self.agent = self.experiment.agent.make(self.spec)
        self._compile()

    def reset(self) -> None:
        """Forgets what a recurrent policy remembers: call it when an episode begins."""
        self._state = initial.initial_actor_state(self.agent.evaluator, 1)
        # What a policy that is not greedy draws is another in each episode.
        self._episode, self._step = self._episode + (self._step > 0), 0

    def _directory(self) -> pathlib.Path:
        if not (directory := self.checkpoint.path.parents[1]).is_dir():
            raise SettingError(
                f"the run must still be in {str(directory)!r}, got no such folder; load it from "
                "where it is now"
            )
        return directory

    def film(
        self, output: str | pathlib.Path | None = None, episodes: int = 1, numbers: bool = False
    ) -> Film:
        """Films episodes as evaluation plays them; the film plays where a notebook shows it.

        Args:
          output: a file that ends in .mp4; by default videos/watch.mp4 in the folder of the run.
          episodes: to play.
          numbers: put return so far, values and probabilities of actions beside the picture.

        Raises:
          SettingError: the environment gives no pictures, or the file cannot be written.
        """
        own = output or self._directory() / "videos" / "watch.mp4"
        return film(self, pathlib.Path(own), episodes, numbers)

    def plot(self, name: str = "return") -> Picture:
        """Draws the run up to its last row; returns a figure of it, which a notebook shows.

        Args:
          name: of the figure: return, losses or diagnostics.

        Raises:
          SettingError: there is nothing to draw.
        """
        directory = self._directory()
        columns = read_metrics(directory / "metrics.csv")
        known = {path.stem: path for path in plot_run(columns, directory, self.experiment.name)}
        choose(f"{directory}: figure", name, known)
        return Picture(known[name])

    def __call__(self, observation: Any) -> Any:
        """Returns the action for one observation, both as the specs have them.

        Raises:
          SettingError: the observation is not one of the spec's.
        """
        wanted = self.spec.observations
        if isinstance(wanted, specs.Array) and isinstance(observation, list):
            observation = np.array(observation)
        found = jax.tree.map(np.asarray, observation)
        if wrong := rules.unlike(wanted, found):
            raise SettingError(
                f"an observation{wrong}; one environment's, without a batch axis, and without info"
            )
        for rule in rules.of_observations(wanted, found):
            if rule.broken.any():
                raise SettingError(f"an {rule.name} must be {rule.must}, got {found}")
        held = lambda spec, x: np.asarray(x, jax.dtypes.canonicalize_dtype(spec.dtype))[None]
        one = jax.tree.map(held, wanted, found)
        step_type = dm_env.StepType.MID if self._step else dm_env.StepType.FIRST
        ones = np.ones(1, np.float32)
        timestep = dm_env.TimeStep(np.full(1, step_type, np.int32), 0 * ones, ones, one)
        counters = np.int32(self._step), timestep, self._state, np.full(1, self._episode, np.int32)
        action, self._state = self._act(self.params, self._key, *counters)
        self._step += 1
        action = jax.tree.map(lambda x: np.asarray(x)[0], action)
        return environments.clip_actions(self.spec.actions, action)
