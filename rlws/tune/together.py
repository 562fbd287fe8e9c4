"""Trials that share a compiled program: a population whose places they take and leave."""

import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlws.environments import resolve
from rlws.numerics import checkpoint
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Experiment
from rlws.runs.recorder import Recorder
from rlws.settings import SettingError, change, describe
from rlws.tracking import Csv, Json, Run, Tracker
from rlws.tracking.stderr import warn
from rlws.trainers import Member, Snapshot
from rlws.trainers.device import runs as reports_of
from rlws.trainers.population import Population
from rlws.trainers.tally import COUNTS, Tally
from rlws.trainers.trainer import Control
from rlws.tune.methods import Job, Values
from rlws.tune.trials import Scored, Trials

ROWS = 50  # of metrics in a trial that is trained to the end
FEW = 4  # one in so many places taken, at most: a narrower program is worth its compilation


class State(NamedTuple):
    """A run as it was at some steps."""

    steps: int
    counts: dict[str, int]  # of a Tally
    facts: dict[str, Any]  # of a Recorder, with its seconds
    arrays: Any  # of the run, on the host; or its place in the population that was trained last


class Together:
    """Trains the trials of each group in one program, as many at once as there are places."""

    def __init__(self, trials: Trials, runs: int, checkpointer: Checkpointer):
        """Trains up to so many runs at once, at least those of a trial."""
        self._trials, self._checkpointer = trials, checkpointer
        self.places = max(1, runs // len(trials.seeds))
        self._groups = dict[Any, _Group]()

    def group(self, settings: Values) -> Any:
        """Returns the settings that a program is compiled for."""
        return tuple(sorted((k, repr(v)) for k, v in settings.items() if not isinstance(v, float)))

    def train(self, jobs: list[Job], before: dict[int, int]) -> Iterator[Scored]:
        """Yields the jobs of each turn of a program with their scores."""
        for key in dict.fromkeys(self.group(job.settings) for job in jobs):
            own = [job for job in jobs if self.group(job.settings) == key]
            if key not in self._groups:
                self._groups[key] = _Group(self._trials, own[0], self.places, self._checkpointer)
            yield from self._groups[key].train(own, before)


class _Group:
    """The trials of one program."""

    def __init__(self, trials, job, places, checkpointer):
        self._trials, self._checkpointer = trials, checkpointer
        # Of real settings as they are: their values are data, and so the same program serves all.
        fixed = {k: v for k, v in job.settings.items() if not isinstance(v, float)}
        experiment = change(trials.experiment, fixed)
        self._environment = resolve.device(experiment.source)
        self._population = Population(
            experiment.agent, self._environment, experiment.trainer.num_envs
        )
        seeds = len(trials.seeds)
        wanted = max(2, places * seeds)  # one by itself would have no axis
        room = self._population.room(self._members([job] * (-(-wanted // seeds)))[:wanted])
        if room < max(2, seeds):
            raise SettingError(f"the memory must hold {max(2, seeds)} runs, got room for {room}")
        self._width = max(2, min(wanted, room) // seeds * seeds)
        self._last: Any = None  # the population as it was after its last turn
        self._states = dict[tuple[int, int], State]()  # by trial and run of it

    def _members(self, jobs):
        """Returns the runs of some trials."""
        real = lambda job: {
            k.removeprefix("agent."): v for k, v in job.settings.items() if isinstance(v, float)
        }
        return [Member(seed, real(x)) for x in jobs for seed in self._trials.seeds_of(x.trial)]

    def train(self, jobs, before):
        """Yields the jobs of each turn with their scores."""
        most = self._width // len(self._trials.seeds)
        for i in range(0, len(jobs), most):
            yield self._turn(jobs[i : i + most], before)

    def _turn(self, jobs, before):
        seeds = range(len(self._trials.seeds))
        runs = [(job, j) for job in jobs for j in seeds]
        members = self._members(jobs)
        few = self._width // FEW
        width = few if len(members) <= few and few > 1 else self._width
        members += [members[0]] * (width - len(members))  # places that nobody takes
        compiled = self._population.compile(members)
        # From now on all have so many steps to go, so that one budget ends them all at once.
        total = max(job.steps - before.get(job.trial, 0) for job in jobs)
        run, tallies = self._placed(compiled, runs, before, total)
        recorders = [self._recorder(job, j, before) for job, j in runs]
        control = Control(steps=total, report_period=max(1, self._trials.experiment.steps // ROWS))
        began = time.perf_counter()
        going = reports_of(
            *(compiled, self._environment, control, [[*range(width)]], run, tallies),
            next_report=min(total, control.report_period),
        )
        for reports in going:
            seconds = time.perf_counter() - began
            ended = all(report.spent or report.halted for report in reports)
            own = [
                report._replace(steps=report.steps - total + job.steps)
                for (job, _), report in zip(runs, reports, strict=False)
            ]
            if ended:
                return self._ended(runs, recorders, own, members, seconds)
            for recorder, report in zip(recorders, own, strict=True):
                if not (report.spent or report.halted):
                    recorder.take(report, recorder.before + seconds)
        raise AssertionError("a population must end")

    def _placed(self, compiled, runs, before, total):
        """Returns the population at the beginning of a turn, and what was counted of each."""
        fresh = compiled.init()
        width = len(compiled.agents)
        tallies = [Tally(steps=total) for _ in range(width)]
        take, held = np.zeros(width, np.int32), np.zeros(width, bool)
        loaded = {}
        for i, (job, j) in enumerate(runs):
            tallies[i] = Tally(steps=total - job.steps)
            source = job.trial if job.parent is None else job.parent
            if not (steps := before.get(source, 0)):
                continue
            state = self._state(source, j, steps)
            tallies[i] = Tally(**state.counts)
            tallies[i].steps += total - job.steps
            tallies[i].uncut()
            held[i] = isinstance(state.arrays, int)
            if held[i]:
                take[i] = state.arrays
            else:
                loaded[i] = state.arrays
        run = fresh if self._last is None else _taken(fresh, self._last, take, held)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), fresh)
        for i, arrays in loaded.items():
            run = _put(run, i, checkpoint.restore(like, arrays, "run"))
        # Each draws from streams of its own, whoever it comes from.
        run = _begun(run, fresh.keys)
        for tally, halted in zip(tallies, jax.device_get(run.state.halted), strict=True):
            tally.halted = bool(halted)
        return run, tallies

    def _state(self, trial, j, steps):
        """Returns a run as it was at these steps, from its folder if it is not at hand."""
        known = self._states.get((trial, j))
        if known is None or known.steps != steps:
            folder = self._trials.folder(trial, j) / "checkpoints"
            found = checkpoint.newest(folder, warn, at=steps)
            if found is None or int(found.path.name) != steps:
                raise checkpoint.CheckpointError(
                    f"{folder} must hold the state at {steps} steps, got none; restore it, or "
                    "begin another study"
                )
            counts = {name: found.facts["trainer"][name][0] for name in COUNTS}
            known = State(steps, counts, found.facts["after"], found.arrays)
        return known

    def _recorder(self, job, j, before):
        """Returns what follows a run, from where it is."""
        own = self._trials.of(job)[j]
        steps = before.get(job.trial, 0)
        facts = self._state(job.trial, j, steps).facts if steps else None
        return _Following(own, facts)

    def _ended(self, runs, recorders, reports, members, seconds):
        """Takes the last reports of a turn, with evaluations; returns the jobs with their scores.

        Each run is left as one by itself, and the population for the next turn.
        """
        whole = reports[0].snapshot()
        run = whole.arrays["run"]
        episodes = recorders[0].experiment.evaluation.episodes
        params = run.state.learner.params
        played = self._population.evaluate(members, params, episodes) if episodes else []
        host = Snapshot(jax.device_get(whole.arrays), whole.facts)
        trainer = self._trials.experiment.trainer
        summaries: dict[int, list] = {}
        for i, ((job, j), recorder) in enumerate(zip(runs, recorders, strict=True)):
            arrays, facts = trainer.member(host, i)
            facts = {**facts, "steps": [reports[i].steps], "next_report": reports[i].steps}
            kept = recorder.conclude(reports[i], seconds, played[i] if episodes else None)
            folder = recorder.run.directory
            self._checkpointer.save(job.steps, Snapshot(arrays, facts), kept, folder)
            counts = {name: facts[name][0] for name in COUNTS}
            self._states[job.trial, j] = State(job.steps, counts, kept["after"], i)
            summaries.setdefault(job.trial, []).append(recorder.summary)
        # Of all others the state is in their folders only.
        held = {(job.trial, j) for job, j in runs}
        self._states = {key: state for key, state in self._states.items() if key in held}
        self._last = run
        jobs = {job.trial: job for job, _ in runs}
        return [(job, self._trials.score(summaries[i])) for i, job in jobs.items()]


class _Following(Recorder):
    """A recorder that goes on with a run, and is told of its evaluations."""

    def __init__(self, experiment: Experiment, facts: dict[str, Any] | None):
        """Follows a run from the beginning, or from what `conclude` kept."""
        folder = pathlib.Path(str(experiment.directory))
        folder.mkdir(parents=True, exist_ok=True)
        tracker = Tracker((Csv(), Json(), *experiment.sinks()))
        steps = facts["steps"] if facts else None
        run = Run(
            experiment.name, folder, describe(experiment), experiment.steps or 0, "steps", steps
        )
        self._played: Any = None
        told = {repr(describe(experiment.agent)): lambda params, seed: self._played}
        super().__init__(experiment, run, tracker, told)
        self.before = 0.0  # seconds of training
        if facts:
            self.restore(facts)
            self.before = facts["seconds"]
            self.summary.pop("ended_by", None)  # of what somebody else's state took the place
        tracker.start(run)

    def conclude(self, report, seconds, played) -> dict[str, Any]:
        """Takes the last report; returns the facts of a checkpoint."""
        self._played = played
        before = self.save()
        self.take(report, self.before + seconds)
        self.tracker.finish(self.summary)
        facts = {"experiment": self.run.config, "members": 1, "exact": True}
        return facts | {
            "seconds": self.before + seconds,
            "recorders": [before],
            "after": self.save(),
        }


@jax.jit
def _taken(fresh, last, take, held):
    """Returns a population in which those that are held are members of the last one."""
    where = lambda x: held.reshape(held.shape + (1,) * (x.ndim - 1))
    return jax.tree.map(lambda new, old: jnp.where(where(new), old[take], new), fresh, last)


@jax.jit
def _put(run, i, member):
    return jax.tree.map(lambda x, y: x.at[i].set(y), run, member)


@jax.jit
def _begun(run, keys):
    """Returns a population in memory of its own, which draws by these keys; nothing is totalled."""
    state = run.state._replace(totals=run.state.totals.zero())
    return jax.tree.map(jnp.copy, run._replace(keys=keys, state=state))
