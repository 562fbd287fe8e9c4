"""Follows the runs of an experiment to their end: reports, checkpoints, signals."""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rlws.runs import capsule
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Experiment
from rlws.runs.recorder import Recorder
from rlws.tracking.interrupts import Interrupted, Interrupts, finishing
from rlws.tracking.progress import short
from rlws.trainers import Member, Progress, Snapshot

Reports = dict[int, Progress]


def train(
    experiment: Experiment,
    runs: list[Member],
    recorders: list[Recorder],
    checkpointer: Checkpointer,
    after: Callable[[Reports, float], None] = lambda reports, seconds: None,
) -> None:
    """Trains all `runs`, from where the checkpointer's newest checkpoint leaves them.

    Args:
      experiment: whose runs these are.
      runs: its members.
      recorders: of each member.
      checkpointer: of the folder of all of them.
      after: is called when the recorders have taken reports, with the seconds spent in training.

    Raises:
      Interrupted: a signal; the run is saved, or the remedy says why not.
    """
    seconds, resume = _restored(recorders, checkpointer)
    alone = len(runs) == 1
    remedy = f"go on with: rlws resume {shlex.quote(short(checkpointer.directory))}"
    # Signals wait but where recorders are at work; wherever one is raised, there is a report whose
    # snapshot is still good.
    with Interrupts(remedy) as interrupts, contextlib.ExitStack() as stack:
        over = lambda i: "stopped_by" in recorders[i].summary
        control: Any = dict(resume=resume, stop=interrupts.pending, ended=over)
        reports: Any = experiment.train_all(runs, **control)
        stack.callback(reports.close)
        for batch, elapsed in _timed(reports, seconds, interrupts):
            checkpointer.forget()  # trainers have it by now
            batch = {i: report for i, report in batch.items() if not over(i)}
            some = next(iter(batch.values()))
            facts = {"seconds": elapsed, "recorders": [recorder.save() for recorder in recorders]}
            steps = _steps(recorders, batch)
            ended = all(report.spent for report in batch.values())
            # Never NaN over what is good: its capsule comes from the checkpoint before.
            bad = alone and some.halted

            def save(step=steps, some=some, facts=facts):
                with interrupts.saving():
                    checkpointer.save(step, some.snapshot(), facts)

            if not alone:
                spent = [i for i, report in batch.items() if report.spent]
                with interrupts.saving():
                    _save_ended(experiment, recorders, checkpointer, batch, facts, spent)
            if not bad and (some.stopped or ended or checkpointer.due(steps)):
                save()
            if some.stopped:
                interrupts.check()
            try:
                with interrupts.opened():
                    for i, report in batch.items():
                        recorders[i].take(report, elapsed)
                    after(batch, elapsed)
                    if bad:
                        raise capsule.keep(experiment, runs, checkpointer, some)
            except Interrupted:
                if not bad:
                    save()
                raise
            if experiment.checkpoint.best:
                with interrupts.saving():
                    _save_best(experiment, recorders, checkpointer, batch, facts)
            if stopped := [i for i in batch if over(i)]:
                if not alone:
                    with interrupts.saving():
                        _save_ended(experiment, recorders, checkpointer, batch, facts, stopped)
                save()  # which a resumed run begins with, and so stops there again


@contextlib.contextmanager
def finished_by(recorders: list[Recorder], finish: Callable[[], None]) -> Iterator[None]:
    """Calls `finish` at the end, whichever it is; the recorders are told of an error before."""
    try:
        yield
    except BaseException as error:
        with finishing(error):
            for recorder in recorders:
                recorder.end(error)
            finish()
        raise
    finish()


def _restored(
    recorders: list[Recorder], checkpointer: Checkpointer
) -> tuple[float, Snapshot | None]:
    """Takes the recorders to where the run was saved; returns its seconds, and its state."""
    if checkpointer.saved is None:
        return 0.0, None
    facts = checkpointer.saved.facts
    for recorder, own in zip(recorders, facts["recorders"], strict=True):
        recorder.restore(own)
    return facts["seconds"], Snapshot(checkpointer.saved.arrays, facts["trainer"])


def _save_ended(experiment, recorders, checkpointer, batch, facts, ended):
    """Leaves each member that has ended a checkpoint of its own: a run by itself from then on."""
    whole = None
    for i in ended:
        whole = batch[i].snapshot() if whole is None else whole
        member, run = experiment.trainer.member(whole, i), recorders[i].run
        checkpointer.save(batch[i].steps, member, _own(run, facts, i), run.directory)


def _own(run, facts, member):
    """Returns the facts of one member of several, as if it had run alone."""
    saved = [facts["recorders"][member]]
    return {**facts, "recorders": saved, "experiment": run.config, "members": 1}


def _save_best(experiment, recorders, checkpointer, batch, facts):
    """Keeps the state of each member whose evaluation is its best so far."""
    for i, report in batch.items():
        if evaluated := recorders[i].evaluated:
            run = recorders[i].run
            snapshot = lambda i=i: experiment.trainer.member(batch[i].snapshot(), i)
            about = _own(run, facts, i), evaluated, run.directory
            recorders[i].summary |= checkpointer.save_best(report.steps, snapshot, *about)


def _steps(recorders: list[Recorder], batch: Mapping[int, Progress]) -> int:
    """Returns the environment steps of all members."""
    done: list[Any] = [recorder.summary["steps"] for recorder in recorders]
    for i, report in batch.items():
        done[i] = report.steps
    return int(sum(done))


def _timed(
    reports: Iterator[Reports], seconds: float, interrupts: Interrupts
) -> Iterator[tuple[Reports, float]]:
    """Yields reports with the seconds spent so far in making them."""
    while True:
        began = time.perf_counter()
        try:
            report = next(reports, None)
        except Exception as error:
            # Processes of environments may have got the signal, too. Of the state nothing is left.
            interrupts.check(lost=error)
            raise
        seconds += time.perf_counter() - began
        if report is None:
            return
        yield report, seconds
