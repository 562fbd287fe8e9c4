"""An experiment: which agent in which environment, for how long, and what to keep of it."""

import contextlib
import datetime
import itertools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from rlws import environments
from rlws.agent import AgentConfig
from rlws.cache import enable_cache
from rlws.environments import resolve
from rlws.recorder import Recorder
from rlws.settings import NonNegativeInt, PositiveInt, Seed, SettingError, Settings, describe
from rlws.sweep import members, run_all
from rlws.tracking import Csv, Json, Plots, Run, Sink, Terminal, Tracker
from rlws.trainers import HostTrainer, Member, Progress, Trainer
from rlws.trainers.trainer import limits

REPORTS = 200  # rows of metrics in a run of so many steps


class Evaluation(Settings):
    """Episodes of the evaluator, from initial states that are the same each time."""

    episodes: PositiveInt = 100  # per evaluation
    period: NonNegativeInt = 0  # environment steps between evaluations; 0: at the end only


class Experiment(Settings):
    """One run, ready to launch; replace any field to make another."""

    name: str  # of the experiment, and of its folder in results/
    environment: str  # such as gym:CartPole-v1 or jax:Catch
    agent: AgentConfig
    trainer: Trainer = HostTrainer()
    steps: NonNegativeInt | None = 100_000  # budget in environment steps
    episodes: NonNegativeInt | None = None  # budget in episodes, if it is used up first
    seed: Seed = 0  # decides everything random
    evaluation: Evaluation = Evaluation()
    directory: str | None = None  # of this run; by default results/<name>/<time>-seed<seed>
    video: bool = False  # greedy episodes as mp4, at the start, the middle and the end
    quiet: bool = False  # print the summary only
    sweep: tuple[str, ...] = ()  # agent.name=value,value,...: a run for each

    def run(self, sinks: tuple[Sink, ...] = ()) -> dict[str, Any]:
        """Trains and evaluates the agent, keeps everything in the run's directory.

        Args:
          sinks: follow the run elsewhere, besides terminal, metrics.csv, JSON files and plots.

        Returns:
          The summary, as in summary.json.

        Raises:
          SettingError: something about the experiment cannot be; nothing was written or compiled.
        """
        self.check()
        enable_cache()
        directory = self._new_directory()
        if len(runs := members(self)) > 1:
            return run_all(self, runs, directory, sinks)
        unit = "episodes" if self.steps is None else "steps"
        run = Run(self.name, directory, describe(self), getattr(self, unit), unit)
        tracker = Tracker((Terminal(self.quiet), Csv(), Json(), Plots(), *sinks))
        tracker.start(run)
        recorder = Recorder(self, run, tracker)
        try:
            for report, seconds in _timed(self._train()):
                recorder.take(report, seconds)
        except BaseException as error:
            recorder.end(error)
            raise
        finally:
            tracker.finish(recorder.summary)
        return recorder.summary

    def check(self) -> None:
        """Raises a SettingError unless environment, agent, trainer and budget fit each other."""
        limits(self.steps, self.episodes)
        members(self)
        self.trainer.check(self.environment)
        made = resolve.host(self.environment, self.seed, 0, render=self.video)
        with contextlib.closing(made) as environment:
            agent = self.agent.make(environments.spec(environment))
            agent.adder.schedule(self.trainer.num_envs)
            if self.video:
                self._check_pictures(environment)

    def _check_pictures(self, environment):
        try:
            environment.reset()
            environment.render()
        except Exception as error:  # whatever a renderer lacks
            raise SettingError(
                f"--video needs pictures, and {self.environment} gives none: {error}; "
                "leave out --video"
            ) from error

    def train_all(self, runs: list[Member]) -> Iterator[dict[int, Progress]]:
        """Trains several runs of this experiment; see `Trainer.train_all`."""
        return self.trainer.train_all(self.agent, self.environment, runs, **self._budget())

    def _train(self):
        return self.trainer.train(self.agent, self.environment, seed=self.seed, **self._budget())

    def _budget(self):
        period = 1000 if self.steps is None else max(1, self.steps // REPORTS)
        return dict(steps=self.steps, episodes=self.episodes, report_period=period)

    def _new_directory(self) -> pathlib.Path:
        now = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-seed{self.seed}"
        root = pathlib.Path("results") / self.name
        fresh = (root / (now + f"-{n}" * (n > 1)) for n in itertools.count(1))
        for directory in fresh if self.directory is None else [pathlib.Path(self.directory)]:
            try:
                if not directory.is_dir() or not any(directory.iterdir()):
                    directory.mkdir(parents=True, exist_ok=True)
                    # Fails here rather than after training; and of two runs at once one goes on.
                    (directory / "config.json").touch(exist_ok=False)
                    return directory
            except FileExistsError:
                continue
            except OSError as error:
                raise SettingError(
                    f"directory must be writable, got {str(directory)!r}: {error.strerror}; "
                    "choose another with --directory"
                ) from error
        raise SettingError(
            f"directory must be new or empty, got {self.directory!r}, which holds files; "
            "choose another with --directory, or remove it"
        )


def _timed(reports):
    """Yields each report with the seconds spent so far in making reports."""
    seconds, reports = 0.0, iter(reports)
    while True:
        began = time.perf_counter()
        report = next(reports, None)
        seconds += time.perf_counter() - began
        if report is None:
            return
        yield report, seconds
