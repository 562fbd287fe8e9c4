"""Trials that share a compiled program: a population whose places they take and leave."""

import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlws.environments import resolve
from rlws.numerics import checkpoint, trees
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.recorder import Recorder
from rlws.settings import change, describe
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
        agent, source = (one := change(trials.experiment, fixed)).agent, one.source
        self._environment = resolve.device(source)
        self._population = Population(agent, self._environment, one.trainer.num_envs)
        seeds = len(trials.seeds)
        # At least two, since one by itself would have no axis; of a trial all seeds or none.
        most = self._population.room(self._members([job] * max(2, places)))
        self._width = max(2, seeds, min(places * seeds, most // seeds * seeds))
        self._last: Any = None  # the population as it was after its last turn
        # Its members by trial and run of it: steps, facts as in a checkpoint, and places in it.
        self._known = dict[tuple[int, int], tuple[int, dict, int]]()

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
        runs = [(job, j) for job in jobs for j in range(len(self._trials.seeds))]
        members, few = self._members(jobs), self._width // FEW
        width = few if len(members) <= few and few > 1 else self._width
        members += [members[0]] * (width - len(members))  # places that nobody takes
        compiled = self._population.compile(members)
        # From now on all have so many steps to go, so that one budget ends them all at once.
        total = max(job.steps - before.get(job.trial, 0) for job in jobs)
        run, tallies = self._placed(compiled, runs, before, total)
        played: list = []
        follow = [self._followed(*run, before, lambda i=i: played[i]) for i, run in enumerate(runs)]
        control = Control(steps=total, report_period=max(1, self._trials.experiment.steps // ROWS))
        begun = run, tallies, min(total, control.report_period)
        began = time.perf_counter()
        for reports in reports_of(compiled, self._environment, control, [[*range(width)]], *begun):
            seconds = time.perf_counter() - began
            ended = all(report.spent or report.halted for report in reports)
            if ended:
                whole = reports[0].snapshot()
                played += self._evaluated(members, whole.arrays["run"])
                host = Snapshot(jax.device_get(whole.arrays), whole.facts)
                self._known = {}
            for i, ((job, j), recorder) in enumerate(zip(runs, follow, strict=True)):
                report = reports[i]._replace(steps=reports[i].steps - total + job.steps)
                took = recorder.began + seconds
                if ended:
                    facts = self._kept(recorder, job, report, took, host, i)
                    self._known[job.trial, j] = job.steps, facts, i
                elif not (report.spent or report.halted):
                    recorder.take(report, took)
        self._last = whole.arrays["run"]
        count = len(self._trials.seeds)
        ends = [follow[i : i + count] for i in range(0, len(runs), count)]
        score = lambda own: self._trials.score([recorder.summary for recorder in own])
        return [(job, score(own)) for job, own in zip(jobs, ends, strict=True)]

    def _placed(self, compiled, runs, before, total):
        """Returns the population at the beginning of a turn, and what was counted of each."""
        fresh, width = compiled.init(), len(compiled.agents)
        tallies = [Tally(steps=total) for _ in range(width)]
        take, held = np.zeros(width, np.int32), np.zeros(width, bool)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), fresh)
        loaded = {}
        for i, (job, j) in enumerate(runs):
            source = job.trial if job.parent is None else job.parent
            tallies[i] = Tally(steps=total - job.steps)
            if steps := before.get(source, 0):
                facts, place = self._state(source, j, steps)
                tallies[i] = Tally(**{name: facts["trainer"][name][0] for name in COUNTS})
                tallies[i].steps += total - job.steps
                tallies[i].uncut()
                if isinstance(place, int):
                    take[i], held[i] = place, True
                else:
                    loaded[i] = trees.restore(like, place, "run")
        run = fresh if self._last is None else _taken(fresh, self._last, take, held)
        for i, member in loaded.items():
            run = _put(run, i, member)
        # Each draws from streams of its own, whoever it comes from.
        run = _begun(run, fresh.keys)
        for tally, halted in zip(tallies, jax.device_get(run.state.halted), strict=True):
            tally.halted = bool(halted)
        return run, tallies

    def _state(self, trial, j, steps):
        """Returns the facts of a run at these steps, with its place, or its arrays from a file."""
        known, facts, place = self._known.get((trial, j), (0, {}, 0))
        if known == steps:
            return facts, place
        folder = self._trials.folder(trial, j) / "checkpoints"
        found = checkpoint.newest(folder, warn, at=steps)
        if found is None or int(found.path.name) != steps:
            raise checkpoint.CheckpointError(
                f"{folder} must hold the state at {steps} steps, got none; restore it, or begin "
                "another study"
            )
        return found.facts, found.arrays

    def _followed(self, job, j, before, played):
        """Returns what follows a run from where it is, and is told how an evaluation was played."""
        own = self._trials.of(job)[j]
        steps, folder = before.get(job.trial, 0), self._trials.folder(job.trial, j)
        facts = self._state(job.trial, j, steps)[0]["after"] if steps else {}
        folder.mkdir(parents=True, exist_ok=True)
        how = describe(own), job.steps, "steps", facts.get("steps")
        told = {repr(describe(own.agent)): lambda params, seed: played()}
        tracker = Tracker((Csv(), Json(), *own.sinks()))
        recorder = _Following(own, Run(own.name, folder, *how), tracker, told)
        if facts:
            recorder.restore(facts)
            recorder.began = facts["seconds"]
            recorder.summary.pop("ended_by", None)  # of what somebody else's state took the place
        tracker.start(recorder.run)
        return recorder

    def _evaluated(self, members, run):
        """Returns what says what each came to in its evaluation."""
        episodes = self._trials.experiment.evaluation.episodes
        params = run.state.learner.params
        return self._population.evaluate(members, params, episodes) if episodes else []

    def _kept(self, recorder, job, report, seconds, whole, place):
        """Takes the last report of a turn, leaves a run by itself; returns its facts."""
        arrays, counts = self._trials.experiment.trainer.member(whole, place)
        counts = {**counts, "steps": [report.steps], "next_report": report.steps}
        facts = {"experiment": recorder.run.config, "members": 1, "seconds": seconds}
        facts["recorders"] = [recorder.save()]
        recorder.take(report, seconds)
        recorder.tracker.finish(recorder.summary)
        facts["after"] = recorder.save()
        where = recorder.run.directory
        self._checkpointer.save(job.steps, Snapshot(arrays, counts), facts, where)
        return {**facts, "trainer": counts}


class _Following(Recorder):
    """A recorder that goes on."""

    began = 0.0  # seconds of training before


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
