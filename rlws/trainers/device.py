"""Training in one compiled program: environment, acting, adding and learning on the device."""

import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from rlws.environments import resolve, rules
from rlws.environments.checks import check_rules
from rlws.numerics import checkpoint
from rlws.settings import PositiveInt, SettingError
from rlws.trainers.population import Population, Untraceable
from rlws.trainers.program import Budget, Log
from rlws.trainers.trainer import (
    Control,
    Member,
    Progress,
    Snapshot,
    Trainer,
    limits,
    next_multiple,
)

MAX = 2**31 - 1  # of an int32
COUNTS = ("steps", "episodes", "cut_steps", "cut_episodes")
PACE = 512  # steps of each run, at least, between two looks at `stop`


class DeviceTrainer(Trainer):
    """Runs a JaxEnvironment, vmapped over `num_envs`, in one scanned program.

    The program runs in chunks of one report, or less where its episode log is full.
    """

    num_devices: PositiveInt = 1  # environments, and with them batches, are split among devices
    num_seeds: PositiveInt = 1  # runs at once: this many seeds, from the experiment's on

    def check(self, environment):
        resolve.device(environment)
        if self.num_envs % self.num_devices or self.num_devices > jax.device_count():
            raise SettingError(
                f"num_devices must divide num_envs={self.num_envs} and be at most the "
                f"{jax.device_count()} there are, got {self.num_devices}; on a CPU, XLA_FLAGS="
                "--xla_force_host_platform_device_count=N makes virtual ones"
            )

    def train(self, config, environment, *, seed=0, **control):
        runs = self.train_all(config, environment, [Member(seed, {})], **control)
        return (reports[0] for reports in runs)

    def train_all(self, config, environment, members, **control):
        """Trains several runs in one program, as many at once as fit into the free memory.

        A snapshot holds those that are in one program; `train_all` goes on with them and the rest.
        """
        how = Control(**control)
        limits(how.steps, how.episodes)
        self.check(environment)
        environment = resolve.device(environment)
        population = Population(config, environment, self.num_envs, self.num_devices)
        resume = how.resume
        parts = population.parts(members) if resume is None else [*resume.facts["parts"]]
        while parts:
            part = parts.pop(0)
            try:
                compiled = population.compile([members[i] for i in part])
            except Untraceable as error:
                warnings.warn(f"{error}; each run is compiled by itself", stacklevel=2)
                parts = [[i] for i in part] + parts
                continue
            for reports in _runs(compiled, environment, how, [part, *parts]):
                yield dict(zip(part, reports, strict=True))
                if reports[0].stopped:
                    return
            how = how._replace(resume=None)

    def member(self, snapshot, member):
        arrays, facts = snapshot
        part = facts["parts"][0]
        i = part.index(member)
        run = arrays["run"]
        if len(part) > 1:
            run = jax.tree.map(lambda x: x[i], run)
        known = {k: facts[k][i : i + 1] for k in (*COUNTS, "updates")}
        known |= {"parts": [[0]], "next_report": facts["next_report"]}
        return Snapshot({"run": run, "ended": {0: arrays["ended"][i]}}, known)


@dataclass
class Tally:
    """What was counted of a run. On the host, as an int32 of the device would not hold it."""

    steps: int = 0
    episodes: int = 0
    # Of these, in a block that the budget cut short: the run stands before it.
    cut_steps: int = 0
    cut_episodes: int = 0
    halted: bool = False
    # [n, 2], returns and lengths of the episodes that ended since the last report.
    ended: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))

    def add(self, log: Log) -> None:
        """Adds what happened in a chunk."""
        self.steps += int(log.steps)
        self.episodes += int(log.episodes)
        self.cut_steps += int(log.cut_steps)
        self.cut_episodes += int(log.cut_episodes)
        self.halted = bool(log.halted)
        rows = log.ended[: log.rows].reshape(-1, 2)
        self.ended = np.concatenate([self.ended, rows[rows[:, 1] > 0]])

    def uncut(self) -> None:
        """Forgets the block that was cut short, as it is to be played whole."""
        self.steps -= self.cut_steps
        self.episodes -= self.cut_episodes
        self.ended = self.ended[: len(self.ended) - self.cut_episodes]
        self.cut_steps = self.cut_episodes = 0


def _runs(compiled, environment, control, parts):
    """Yields the progress of each of the members that are compiled together."""
    last_step, last_episode = limits(control.steps, control.episodes)
    last_update = MAX if control.max_updates is None else control.max_updates
    spent = lambda one: one.steps >= last_step or one.episodes >= last_episode
    run, tallies, next_report = _begin(compiled, environment, control.resume, spent)
    pace = PACE  # steps a chunk may take, so that `stop` is asked every second or so

    def snapshot():
        facts = {name: [getattr(one, name) for one in tallies] for name in COUNTS}
        facts |= {"parts": parts, "next_report": next_report, "updates": updates}
        ended = {i: one.ended for i, one in enumerate(tallies)}
        return Snapshot({"run": before, "ended": ended}, facts)

    while True:
        going = [one.steps for one in tallies if not (one.halted or spent(one))]
        due = not going or min(going) >= next_report
        if due or control.stop():
            before, metrics = run, [dict[str, float]() for _ in tallies]
            if due:
                run, metrics = compiled.read_totals(run)
            learners = compiled.split((run.state.learner.params, run.state.learner.updates))
            updates = [int(count) for _, count in learners]
            yield [
                Progress(
                    one.steps,
                    one.episodes,
                    updates[i],
                    one.ended[:, 0],
                    one.ended[:, 1],
                    metrics[i],
                    compiled.agents[i],
                    params,
                    spent(one),
                    snapshot,
                    one.halted,
                    not due,
                )
                for i, (one, (params, _)) in enumerate(zip(tallies, learners, strict=True))
            ]
            if not (due and going):
                return
            for one in tallies:
                one.ended = one.ended[:0]
            next_report = next_multiple(min(going), control.report_period)
        began = time.perf_counter()
        left: Any = lambda limit, done: np.int32(np.clip(limit - done, 0, MAX))
        budgets = [
            Budget(
                left(min(next_report, one.steps + pace), one.steps),
                left(last_step, one.steps),
                left(last_episode, one.episodes),
                left(last_update, 0),
            )
            for one in tallies
        ]
        run, log, block = compiled.advance(run, budgets)
        for i, (one, own) in enumerate(zip(tallies, compiled.split(log), strict=True)):
            if not own.sound:
                compiled.split(block)[i].check(environment.spec(), type(environment).__name__)
            one.add(own)
        quick = time.perf_counter() - began < 1.0
        pace = min(pace * 4, MAX) if quick else max(pace // 2, PACE)


def _begin(compiled, environment, resume, spent):
    """Returns runs, tallies and when to report, at the beginning or where they were saved."""
    if resume is None:
        run = compiled.init()
        name = type(environment).__name__
        for timestep in compiled.split(run.timestep):
            batch = jax.tree.map(lambda x: np.asarray(x)[None], timestep)
            who = lambda t, i: f"{name}, environment {i}, episode 0, step 0"
            check_rules(rules.of_timesteps(batch), who)
        return run, [Tally() for _ in compiled.agents], 0
    arrays, facts = resume
    run = compiled.restore(checkpoint.restore(jax.eval_shape(compiled.init), arrays, "run"))
    tallies = []
    for i, halted in enumerate(compiled.split(run.state.halted)):
        counts = {name: facts[name][i] for name in COUNTS}
        tallies.append(Tally(**counts, halted=bool(halted), ended=arrays[f"ended/{i}"]))
        if not spent(tallies[-1]):  # the budget was raised
            tallies[-1].uncut()
    return run, tallies, facts["next_report"]
