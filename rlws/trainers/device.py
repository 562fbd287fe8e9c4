"""Training in one compiled program: environment, acting, adding and learning on the device."""

import time
import warnings
from typing import Annotated

import jax

from rlws.environments import resolve
from rlws.numerics import counts
from rlws.settings import PositiveInt, Range, SettingError
from rlws.trainers.population import Population, Untraceable
from rlws.trainers.tally import COUNTS, MAX, begin
from rlws.trainers.trainer import (
    Control,
    Member,
    Snapshot,
    Trainer,
    limits,
    next_multiple,
)

PACE = 512  # steps of each run, at least, between two looks at `stop`


Seeds = Annotated[int, Range(1, 100_000)]  # each has a folder


class DeviceTrainer(Trainer):
    """Runs a JaxEnvironment, vmapped over `num_envs`, in one scanned program.

    The program runs in chunks of one report, or less where its episode log is full.
    """

    # Environments, and with them batches, are split among devices; a replay is whole on each.
    num_devices: PositiveInt = 1
    num_seeds: Seeds = 1  # runs at once: this many seeds, from the experiment's on

    def check(self, environment):
        if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
            raise SettingError(
                "JAX_ENABLE_X64 must be off with the DeviceTrainer, whose programs are of 32 bits, "
                "got on; unset it, or use the HostTrainer"
            )
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
        if self.num_devices > 1 and len(members) > 1:
            raise SettingError(
                f"num_devices must be 1 for several runs at once, got {self.num_devices} for "
                f"{len(members)}; set num_devices=1, or num_seeds=1 without a sweep"
            )
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
            begun = begin(compiled, environment, how)
            for reports in runs(compiled, environment, how, [part, *parts], *begun):
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
        known = {k: facts[k][i : i + 1] for k in COUNTS}
        known |= {"parts": [[0]], "next_report": facts["next_report"]}
        return Snapshot({"run": run, "ended": {0: arrays["ended"][i]}}, known)


def runs(compiled, environment, control, parts, run, tallies, next_report):
    """Yields the progress of each of the members that are compiled together, from a state on.

    Args:
      compiled: their program.
      environment: that they are in.
      control: their budget; `resume` is not looked at.
      parts: of members, of which these are the first; kept in snapshots.
      run: the state of all, which is used up.
      tallies: what was counted of each so far, towards the budget.
      next_report: the steps of the next one.
    """
    pace = PACE  # steps a chunk may take, so that `stop` is asked every second or so

    def goes_on(i):
        return not (tallies[i].halted or tallies[i].spent(control) or control.ended(parts[0][i]))

    def snapshot():
        facts: dict = {name: [getattr(one, name) for one in tallies] for name in COUNTS}
        facts |= {"parts": parts, "next_report": next_report}
        ended = {i: one.ended for i, one in enumerate(tallies)}
        return Snapshot({"run": before, "ended": ended}, facts)

    while True:
        going = [one.steps for i, one in enumerate(tallies) if goes_on(i)]
        due = not going or min(going) >= next_report
        if due or control.stop():
            before, metrics = run, [dict[str, float]() for _ in tallies]
            if due:
                run, metrics = compiled.read_totals(run)
            learners = compiled.split((run.state.learner.params, run.state.learner.updates))
            for one, (_, count) in zip(tallies, learners, strict=True):
                one.updates = counts.unwrapped(int(count), one.updates)
            about = dict(snapshot=snapshot, stopped=not due)
            each = zip(tallies, compiled.agents, learners, metrics, strict=True)
            yield [
                one.progress(control, agent=agent, params=params, metrics=own, **about)
                for one, agent, (params, _), own in each
            ]
            going = [one.steps for i, one in enumerate(tallies) if goes_on(i)]  # by now
            if not (due and going):
                return
            for one in tallies:
                one.ended = one.ended[:0]
            next_report = next_multiple(min(going), control.report_period)
        began = time.perf_counter()
        budgets = [
            one.budget(control, min(next_report, one.steps + pace) if goes_on(i) else one.steps)
            for i, one in enumerate(tallies)
        ]
        run, log, block = compiled.advance(run, budgets)
        for i, (one, own) in enumerate(zip(tallies, compiled.split(log), strict=True)):
            if not own.sound:
                compiled.split(block)[i].check(environment.spec(), type(environment).__name__)
            one.add(own)
        quick = time.perf_counter() - began < 1.0
        pace = min(pace * 4, MAX) if quick else max(pace // 2, PACE)
