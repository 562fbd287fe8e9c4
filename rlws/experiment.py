"""An experiment: which agent in which environment, for how long, and what to keep of it."""

import contextlib
import datetime
import itertools
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from rlws import environments
from rlws.agent import AgentConfig
from rlws.cache import enable_cache
from rlws.environments import resolve
from rlws.environments.repeats import repeats
from rlws.keeper import Checkpoints, Keeper
from rlws.recorder import Recorder
from rlws.runs import check_same, finished
from rlws.session import finished_by, follow
from rlws.settings import (
    NonNegativeInt,
    PositiveInt,
    Range,
    Seed,
    SettingError,
    Settings,
    describe,
)
from rlws.sweep import members, run_all
from rlws.tracking import Csv, Json, Plots, Run, Sink, Terminal, Tracker, make_sinks
from rlws.trainers import HostTrainer, Member, Progress, Trainer
from rlws.trainers.deadline import watched
from rlws.trainers.trainer import limits

REPORTS = 200  # rows of metrics in a run of so many steps
Budget = Annotated[int, Range(0, 10**15)]  # more, a float of a row would not hold exactly
CLASSES = {
    True: "exact: resumed, it goes on as if it had never stopped",
    False: "bounded loss: resumed, it begins unfinished episodes anew",
}


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
    steps: Budget | None = 100_000  # budget in environment steps
    episodes: Budget | None = None  # budget in episodes, if it is used up first
    seed: Seed = 0  # decides everything random
    evaluation: Evaluation = Evaluation()
    directory: str | None = None  # of this run; by default results/<name>/<time>-seed<seed>
    video: bool = False  # greedy episodes as mp4, at the start, the middle and the end
    track: tuple[str, ...] = ()  # jsonl, tensorboard, wandb, mlflow: besides; repeat the flag
    on_track_failure: Literal["drop", "stop"] = "drop"  # what a full disk or silent service ends
    quiet: bool = False  # print the summary only
    sweep: tuple[str, ...] = ()  # agent.name=value,value,...: a run for each
    resume: bool = False  # go on with the run in the directory, or begin it
    checkpoint: Checkpoints = Checkpoints()

    def run(self, sinks: tuple[Sink, ...] = ()) -> dict[str, Any]:
        """Trains and evaluates the agent, keeps everything in the run's directory.

        Args:
          sinks: follow the run elsewhere, besides terminal, metrics.csv, JSON files and plots.

        Returns:
          The summary, as in summary.json.

        Raises:
          SettingError: something about the experiment cannot be; nothing was written or compiled.
          Interrupted: a signal; the run is saved.
        """
        exact = self.check()
        sinks = (*self.sinks(), *sinks)
        enable_cache()
        runs = members(self)
        directory = self._claimed()
        facts = {"experiment": describe(self), "exact": exact, "members": len(runs)}
        with contextlib.closing(Keeper(directory, self.checkpoint, facts)) as keeper:
            if self.resume and (found := finished(directory, self.steps, self.episodes)):
                way = "more --steps" if len(runs) == 1 else "one of the runs in it more --steps"
                print(f"finished already: {directory}; to go on give {way}")
                return found
            if len(runs) > 1:
                return run_all(self, runs, keeper, sinks)
            return self._run(runs, keeper, exact, sinks)

    def _run(self, runs, keeper, exact, sinks):
        unit = "episodes" if self.steps is None else "steps"
        config, budget = describe(self), getattr(self, unit)
        run = Run(self.name, keeper.directory, config, budget, unit, keeper.resumed_steps(0))
        tracker = Tracker((Terminal(self.quiet), Csv(), Json(), Plots(), *sinks))
        recorder = Recorder(self, run, tracker)
        with finished_by([recorder], lambda: tracker.finish(recorder.summary)):
            tracker.start(run)
            tracker.note(CLASSES[exact])
            follow(self, runs, [recorder], keeper)
        return recorder.summary

    def check(self) -> bool:
        """Raises a SettingError unless environment, agent, trainer and budget fit each other.

        Returns:
          Whether the run can be resumed exactly; else unfinished episodes are lost.
        """
        limits(self.steps, self.episodes)
        members(self)
        self.trainer.check(self.environment)
        with watched(self.trainer.timeout) as asked, contextlib.ExitStack() as stack:
            asked.now = "environment 0, when it is made,", 0
            environment = resolve.host(self.environment, self.seed, 0, render=self.video)
            stack.callback(environment.close)
            spec = environments.spec(environment)
            asked.now = None
            self.trainer.check_agent(self.agent.make(spec))
            asked.now = "environment 0, when it is tried,", 1
            if self.video:
                self._check_pictures(environment)
            return self.trainer.exact(environment) and repeats(environment)

    def sinks(self) -> tuple[Sink, ...]:
        """Returns new sinks of the kinds to track with, besides those that every run has."""
        return make_sinks(self.track, self.on_track_failure)

    def _check_pictures(self, environment):
        try:
            environment.reset()
            environment.render()
        except Exception as error:  # whatever a renderer lacks
            raise SettingError(
                f"--video needs pictures, and {self.environment} gives none: {error}; "
                "leave out --video"
            ) from error

    def train_all(self, runs: list[Member], **control: Any) -> Iterator[dict[int, Progress]]:
        """Trains several runs of this experiment; `control` is that of `Trainer.train_all`."""
        period = 1000 if self.steps is None else max(1, self.steps // REPORTS)
        budget: dict[str, Any] = dict(
            steps=self.steps, episodes=self.episodes, report_period=period
        )
        return self.trainer.train_all(self.agent, self.environment, runs, **budget, **control)

    def _claimed(self) -> pathlib.Path:
        """Returns the directory of the run, new or, to be resumed, checked to be of the same."""
        if not self.resume:
            return self._new_directory()
        if self.directory is None:
            raise SettingError("resume needs the folder of a run, got none; add --directory DIR")
        directory = pathlib.Path(self.directory)
        if not (directory / "config.json").exists():  # not begun
            return self._new_directory()
        check_same(describe(self), directory)
        return directory

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
            "choose another with --directory, remove it, or go on with it by --resume"
        )
