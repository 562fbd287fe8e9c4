"""Follows the runs of an experiment to their end: reports, checkpoints, signals."""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rlws import capsule
from rlws.interrupts import Interrupted, Interrupts
from rlws.keeper import Keeper
from rlws.recorder import Recorder
from rlws.tracking.progress import short
from rlws.trainers import Member, Progress, Snapshot

if TYPE_CHECKING:
    from rlws.experiment import Experiment

Reports = dict[int, Progress]


def follow(
    experiment: "Experiment",
    runs: list[Member],
    recorders: list[Recorder],
    keeper: Keeper,
    after: Callable[[Reports, float], None] = lambda reports, seconds: None,
) -> None:
    """Trains all `runs`, from where the keeper's newest checkpoint leaves them.

    Args:
      experiment: whose runs these are.
      runs: its members.
      recorders: of each member.
      keeper: of the folder of all of them.
      after: is called when the recorders have taken reports, with the seconds spent in training.

    Raises:
      Interrupted: a signal; everything was saved before.
    """
    saved, seconds, resume = keeper.saved, 0.0, None
    if saved is not None:
        seconds = saved.facts["seconds"]
        for recorder, facts in zip(recorders, saved.facts["recorders"], strict=True):
            recorder.restore(facts)
        resume = Snapshot(saved.arrays, saved.facts["trainer"])
    alone = len(runs) == 1
    remedy = f"go on with: rlws resume {shlex.quote(short(keeper.directory))}"
    with Interrupts(remedy) as interrupts, contextlib.ExitStack() as stack:
        reports: Any = experiment.train_all(runs, resume=resume, stop=interrupts.pending)
        # The environments close with it, while signals are still looked after.
        stack.callback(reports.close)
        for batch, elapsed in _timed(reports, seconds, interrupts):
            some = next(iter(batch.values()))
            facts = {"seconds": elapsed, "recorders": [recorder.save() for recorder in recorders]}
            steps = _steps(recorders, batch)
            ended = all(report.spent for report in batch.values())
            save = lambda step, some=some, facts=facts: keeper.save(step, some.snapshot(), facts)
            with interrupts.deferred():
                if not alone:
                    _save_ended(experiment, recorders, keeper, batch, facts)
                if some.stopped or ended or (keeper.due(steps) and not (alone and some.halted)):
                    save(steps)
            if some.stopped:
                interrupts.check()
            try:
                interrupts.check()
                for i, report in batch.items():
                    recorders[i].take(report, elapsed)
                after(batch, elapsed)
                if alone and some.halted:
                    raise capsule.keep(experiment, runs, keeper, some)
            except Interrupted:
                with interrupts.deferred():
                    save(steps)
                raise


@contextlib.contextmanager
def finished_by(recorders: list[Recorder], finish: Callable[[], None]) -> Iterator[None]:
    """Calls `finish` at the end, whichever it is; the recorders are told of an error before."""
    try:
        yield
    except BaseException as error:
        for recorder in recorders:
            recorder.end(error)
        # Of a second Ctrl-C, the first one's error is what says how to go on.
        with contextlib.suppress(KeyboardInterrupt):
            finish()
        raise
    finish()


def _save_ended(experiment, recorders, keeper, batch, facts):
    """Leaves each member that has ended a checkpoint of its own: a run by itself from then on."""
    whole = None
    for i, report in batch.items():
        if report.spent:
            whole = report.snapshot() if whole is None else whole
            run, saved = recorders[i].run, [facts["recorders"][i]]
            own = {**facts, "recorders": saved, "experiment": run.config, "members": 1}
            member = experiment.trainer.member(whole, i)
            keeper.save(report.steps, member, own, run.directory)


def _steps(recorders: list[Recorder], batch: Mapping[int, Progress]) -> int:
    """Returns the environment steps of all members."""
    done: list[Any] = [recorder.summary["steps"] for recorder in recorders]
    for i, report in batch.items():
        done[i] = report.steps
    return int(sum(done))


def _timed(
    reports: Iterator[Reports], seconds: float, interrupts: Interrupts
) -> Iterator[tuple[Reports, float]]:
    """Yields reports with the seconds spent so far in making them; signals wait meanwhile."""
    while True:
        began = time.perf_counter()
        with interrupts.deferred():
            try:
                report = next(reports, None)
            except Exception:
                interrupts.check()  # processes of environments may have got the signal, too
                raise
        seconds += time.perf_counter() - began
        if report is None:
            return
        yield report, seconds
