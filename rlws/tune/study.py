"""A study: trials as its method asks for them, the winner, and what the winner is worth."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax

from rlws.numerics.cache import enable_cache
from rlws.numerics.memo import sharing
from rlws.runs.check import check_experiment
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Experiment
from rlws.runs.goals import RETURN
from rlws.settings import (
    NonNegativeInt,
    PositiveInt,
    Range,
    SettingError,
    Settings,
    choose,
    describe,
)
from rlws.tracking.columns import signed
from rlws.trainers import DeviceTrainer
from rlws.tune import methods
from rlws.tune.apart import Apart
from rlws.tune.journal import Journal
from rlws.tune.methods import Plan, Values
from rlws.tune.rounds import Rounds, Say, Winner
from rlws.tune.spaces import draw, parse_spaces
from rlws.tune.together import Together
from rlws.tune.tpe import optuna, tpe
from rlws.tune.trials import Trains, Trials

Method = Literal["random", "sobol", "halving", "asha", "pbt", "tpe"]


class Search(Settings):
    """How to search."""

    space: tuple[str, ...] = ()
    trials: PositiveInt = 16
    method: Method = "sobol"
    seeds: PositiveInt = 1  # of each trial; its score is their mean
    metric: str = RETURN  # entry of summary.json; more is better, of name:min less
    # Runs at once in a program; of tpe, asked for at a time. 0: 8 on a CPU, where more are no
    # faster, else 64.
    parallel: NonNegativeInt = 0
    eta: Annotated[int, Range(2, 1000)] = 4  # halving, asha: one in so many goes on
    rungs: Annotated[int, Range(1, 20)] = 3  # halving, asha: how often, the end among them
    rounds: Annotated[int, Range(1, 10_000)] = 20  # pbt: between which settings change
    confirm: Annotated[int, Range(0, 1000)] = 10  # fresh seeds of winner and default


class Study:
    """One search over the settings of an experiment, in a folder."""

    def __init__(self, experiment: Experiment, search: Search, directory: pathlib.Path):
        """Checks what can be before anything is compiled or written.

        Raises:
          SettingError: something cannot be.
        """
        self.directory = directory
        self.rounds: Rounds  # from `run` on
        if experiment.sweep or getattr(experiment.trainer, "num_seeds", 1) > 1:
            raise SettingError("tune must be of one run, got a sweep; say what varies by --space")
        if experiment.steps is None:
            raise SettingError("tune needs a budget in steps, got None; add --steps")
        # Trials are evaluated where they are compared, and nowhere else.
        evaluation = dataclasses.replace(experiment.evaluation, period=0)
        self.experiment = dataclasses.replace(experiment, evaluation=evaluation, video=False)
        self.spaces = parse_spaces(search.space, experiment)
        self.parallel = search.parallel or (8 if jax.default_backend() == "cpu" else 64)
        self.device = isinstance(experiment.trainer, DeviceTrainer)
        told = [text.partition("=")[0] for text in experiment.info]
        shorter = {"return": RETURN, **{name: f"evaluation_{name}" for name in told}}
        asked, colon, way = search.metric.partition(":")
        metric = shorter.get(asked, asked)
        choose("--metric", metric, [*shorter.values(), "training_return_last_100"])
        metric, _ = signed(named := f"{metric}{colon}{way}")
        self.search = dataclasses.replace(search, metric=named)
        if not experiment.evaluation.episodes and metric.startswith("evaluation"):
            raise SettingError("--evaluation.episodes must be at least 1 to score trials, got 0")
        self._check_method()
        check_experiment(self.experiment)

    def _check_method(self):
        names = [space.name for space in self.spaces if not space.real]
        if self.search.method == "pbt" and (names or not self.device):
            what = names[0] if names else "a host trainer"
            raise SettingError(
                f"--method pbt changes settings while a program runs, so they must be real numbers "
                f"and the trainer device, got {what}; try --method asha"
            )
        for space in self.spaces:
            if self.device and space.real and not space.name.startswith("agent."):
                raise SettingError(
                    f"--space {space.name}: a device trains real settings of the agent together, "
                    "got another's; tune it by --trainer host"
                )
        if self.search.method == "tpe":
            optuna()

    @property
    def default(self) -> Values:
        """The settings that are searched as the experiment has them."""
        found: dict[str, Any] = {}
        for space in self.spaces:
            now: Any = self.experiment
            for part in space.name.split("."):
                now = getattr(now, part)
            found[space.name] = now
        return found

    def plan(self, trains: Trains) -> Plan:
        """Returns the rounds of the method."""
        search, steps, seed = self.search, self.experiment.steps or 0, self.experiment.seed
        if search.method == "tpe":
            how = search.trials, steps, self.parallel, seed, self.directory / "tpe.log"
            return tpe(self.spaces, *how)
        draws = draw(self.spaces, search.trials, seed, sobol=search.method != "random")
        stops = methods.rungs(steps, search.rungs, search.eta)
        if search.method == "halving":
            return methods.halving(draws, stops, search.eta)
        if search.method == "asha":
            return methods.asha(draws, stops, search.eta, trains.group, trains.places)
        if search.method == "pbt":
            return methods.pbt(draws, self.spaces, steps, search.rounds, seed)
        return methods.full(draws, steps)

    def expected(self) -> float:
        """Returns how many environment steps all trials may take together."""
        search, steps = self.search, self.experiment.steps or 0
        if search.method not in ("halving", "asha"):
            return search.trials * steps
        stops = methods.rungs(steps, search.rungs, search.eta)
        parts = [stop - last for last, stop in zip([0, *stops], stops, strict=False)]
        return sum(search.trials / search.eta**i * part for i, part in enumerate(parts))

    def run(self, say: Say = print) -> Winner:
        """Trains all trials, but for what is known of them; returns the winner.

        Raises:
          SettingError: all of them failed.
        """
        apart = self.search.method == "pbt"  # whose members copy each other
        seeds = range(self.experiment.seed, self.experiment.seed + self.search.seeds)
        place = self.directory / "trials"
        trials = Trials(self.experiment, seeds, place, self.search.metric, apart)
        self.rounds = Rounds(Journal(self.directory / "journal.jsonl"), self.expected())
        with self._trainer(trials) as trains:
            after = lambda: self.rounds.write(self.directory)
            self.rounds.play(self.plan(trains), trains, say, after)
        after()
        if (winner := self.rounds.best()) is None:
            raise SettingError(f"all trials came to NaN or infinity, see {place}; narrow --space")
        return winner

    def confirm(self, winner: Winner, say: Say = print) -> tuple[pathlib.Path, pathlib.Path]:
        """Trains winner and default with fresh seeds; returns the folders of their runs."""
        used = self.search.seeds * (self.search.trials if self.search.method == "pbt" else 1)
        first = self.experiment.seed + used
        seeds = range(first, first + self.search.confirm)
        default = [(steps, self.default) for steps, _ in winner.segments]
        place, names = self.directory / "confirm", ("winner", "default")
        trials = Trials(self.experiment, seeds, place, self.search.metric, names=names)
        rounds = Rounds(Journal(self.directory / "confirm.jsonl"), 2.0 * winner.segments[-1][0])
        with self._trainer(trials) as trains:
            plan = methods.schedule([winner.segments, default])
            rounds.play(plan, trains, say, lambda: None)
        return place / names[0], place / names[1]

    @contextlib.contextmanager
    def _trainer(self, trials: Trials) -> Iterator[Trains]:
        enable_cache()
        with contextlib.ExitStack() as stack:
            stack.enter_context(sharing())  # programs, from turn to turn
            facts = {"experiment": describe(self.experiment), "exact": True, "members": 1}
            trials.directory.mkdir(parents=True, exist_ok=True)
            one = Checkpointer(trials.directory, self.experiment.checkpoint, facts)
            stack.callback(one.close)
            yield Together(trials, self.parallel, one) if self.device else Apart(trials, stack)
