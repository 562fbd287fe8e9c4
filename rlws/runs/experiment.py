"""An experiment: which agent in which environment, for how long, and what to keep of it."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from rlws.agent import AgentConfig
from rlws.environments import WithInfo
from rlws.settings import NonNegativeInt, PositiveInt, Range, Seed, Settings
from rlws.tracking import Sink, make_sinks
from rlws.trainers import HostTrainer, Member, Progress, Trainer

REPORTS = 200  # rows of metrics in a run of so many steps
Budget = Annotated[int, Range(0, 10**15)]  # more, a float of a row would not hold exactly


EPISODES = 1_000_000  # of an evaluation, which a device plays all at once


class Evaluation(Settings):
    """Episodes of the evaluator, from initial states that are the same each time."""

    episodes: Annotated[int, Range(0, EPISODES)] = 100  # per evaluation; 0: there is none
    num_envs: PositiveInt = 10  # side by side, beside those of training; on the device, all are
    period: NonNegativeInt = 0  # environment steps between evaluations; 0: at the end only


class Checkpoints(Settings):
    """When the state of a run is saved; whether and when changes nothing about the run."""

    # Environment steps between; 0: at the first report after a minute, for 1 % of the time at most.
    period: NonNegativeInt = 0
    keep: PositiveInt = 2  # the newest are kept
    best: str = ""  # and the one with most of this: evaluation_return_mean; name:min for least
    on_error: Literal["stop", "continue"] = "stop"  # where one cannot be written


class Experiment(Settings):
    """What `rlws.run` runs; replace any field to make another."""

    name: str  # of the experiment, and of its folder in results/
    # A name, such as gym:CartPole-v1 or jax:Catch; a JaxEnvironment; a function of seed and index.
    environment: Any
    agent: AgentConfig  # what learns, and its settings
    trainer: Trainer = HostTrainer()  # how environments are stepped
    steps: Budget | None = 100_000  # budget in environment steps
    episodes: Budget | None = None  # budget in episodes, if it is used up first
    # Evaluation that ends the run: evaluation_return_mean=475, say, or name:min=0.1 for less.
    stop_at: str = ""
    stop_times: PositiveInt = 1  # in a row in which it must
    patience: NonNegativeInt = 0  # evaluations no better that end the run; 0: none do
    seed: Seed = 0  # decides everything random
    evaluation: Evaluation = Evaluation()
    # name=rule of what the environment says, such as success=last: columns of metrics.csv.
    info: tuple[str, ...] = ()
    directory: str | None = None  # of this run; by default results/<name>/<time>-seed<seed>
    video: bool = False  # greedy episodes as mp4, at the start, the middle and the end
    track: tuple[str, ...] = ()  # jsonl, tensorboard, wandb, mlflow: besides; repeat the flag
    on_track_failure: Literal["drop", "stop"] = "drop"  # what a full disk or silent service ends
    quiet: bool = False  # print the summary only
    sweep: tuple[str, ...] = ()  # setting=value,value,...: a run for each
    processes: PositiveInt = 1  # for a sweep of runs by themselves
    resume: bool = False  # go on with the run in the directory, or begin it
    checkpoint: Checkpoints = Checkpoints()
    # The module that defines what is not installed, and its file; by default what runs this.
    code: tuple[str, str] | None = None

    @property
    def source(self) -> Any:
        """Returns the environment, with the info that is kept of it."""
        return WithInfo(self.environment, self.info) if self.info else self.environment

    def sinks(self) -> tuple[Sink, ...]:
        """Returns new sinks of the kinds to track with, besides those that every run has."""
        return make_sinks(self.track, self.on_track_failure)

    def train_all(self, runs: list[Member], **control: Any) -> Iterator[dict[int, Progress]]:
        """Trains several runs of this experiment; `control` is that of `Trainer.train_all`."""
        period = 1000 if self.steps is None else max(1, self.steps // REPORTS)
        control |= dict(steps=self.steps, episodes=self.episodes, report_period=period)
        return self.trainer.train_all(self.agent, self.source, runs, **control)
