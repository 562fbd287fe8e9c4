"""Runs an experiment: checks it, takes its folder, trains and evaluates."""

import contextlib
import dataclasses
import datetime
import itertools
import multiprocessing
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rlws import sources
from rlws.numerics.cache import enable_cache
from rlws.runs import sweep, table
from rlws.runs.check import check_experiment
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Experiment
from rlws.runs.folders import (
    check_ahead,
    check_budget,
    check_folder,
    check_same,
    check_settings,
    finished,
    moved,
)
from rlws.runs.health import NAN, NonFiniteError
from rlws.runs.recorder import Recorder
from rlws.runs.session import finished_by, train
from rlws.settings import SettingError, describe
from rlws.tracking import Csv, Json, Plots, Run, Sink, Terminal, Tracker
from rlws.tracking.files import write_json
from rlws.tracking.progress import short
from rlws.tracking.stderr import warn

CLASSES = {
    True: "exact: resumed, it goes on as if it had never stopped",
    False: "bounded loss: resumed, it begins unfinished episodes anew",
}
OTHER = "not exact: it may go on otherwise than it would have, as since it was saved (saved, now)"


def run(experiment: Experiment, sinks: tuple[Sink, ...] = ()) -> dict[str, Any]:
    """Trains and evaluates the agent, keeps everything in the run's directory.

    Args:
      sinks: follow the run elsewhere, besides terminal, metrics.csv, JSON files and plots.

    Returns:
      The summary, as in summary.json.

    Raises:
      SettingError: something about the experiment cannot be; nothing was written or compiled.
      Interrupted: a signal; the run is saved.
    """
    sources.begin()
    if experiment.code is None:
        own = sources.code_of(sys.modules["__main__"])
        experiment = dataclasses.replace(experiment, code=own)
    with contextlib.chdir("."):  # an environment may go elsewhere
        exact = check_experiment(experiment)
    if variants := sweep.variants(experiment):
        return _one_by_one(experiment, variants)
    if "<" in str(found := describe(experiment.environment)):
        warn(
            f"environment: nobody else can find {found!r}, so evaluate, watch and resume cannot; "
            "define it with def, at the top of a module"
        )
    sinks = (*experiment.sinks(), *sinks)
    enable_cache()
    runs = sweep.members(experiment)
    directory = _claimed(experiment).absolute()
    new = not (directory / "config.json").stat().st_size
    described = describe(experiment)
    facts = {"experiment": described, "exact": exact, "members": len(runs)}
    with contextlib.closing(Checkpointer(directory, experiment.checkpoint, facts)) as checkpointer:
        saved = checkpointer.saved
        differs = [*check_settings(described, saved), *moved(saved.facts)] if saved else []
        budget = experiment.steps, experiment.episodes
        if experiment.resume and (found := finished(directory, *budget)):
            way = "more --steps" if len(runs) == 1 else "one of the runs in it more --steps"
            print(f"finished already: {directory}; to go on give {way}")
            return found
        if saved:
            check_budget(saved.facts, experiment.steps, experiment.episodes)
            check_ahead(directory, [sweep.label(i, runs) for i in range(len(runs))], saved.facts)
        if differs:
            warn(f"{OTHER} {'; '.join(differs)}")
        note = CLASSES[exact] * (not differs and len(runs) == 1)
        with _emptied(directory) if new else contextlib.nullcontext():
            return _train(experiment, runs, checkpointer, note, sinks)


@contextlib.contextmanager
def _emptied(directory):
    """Empties the folder of a run that wrong settings end before its first checkpoint.

    So the same command, mended, may have it.
    """
    try:
        yield
    except SettingError:
        if not (directory / "checkpoints").exists():
            for path in directory.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _one_by_one(experiment, variants):
    """Runs variants of an experiment, each in a folder of its own below; returns the summary.

    Those that are finished, of a sweep that goes on, stay as they are.
    """
    directory = _claimed(experiment).absolute()
    write_json(directory / "config.json", describe(experiment))
    print(f"{experiment.name}: {len(variants)} runs, results in {short(directory)}", flush=True)
    own = [
        dataclasses.replace(one, directory=str(directory / label), resume=True, processes=1)
        for label, _, one in variants
    ]
    entries, failed, began = [], [], time.monotonic()
    with contextlib.ExitStack() as stack:
        ran: Iterator[Any] = map(_ran, own)
        if experiment.processes > 1:
            pool = ProcessPoolExecutor(experiment.processes, multiprocessing.get_context("spawn"))
            ran = stack.enter_context(pool).map(_ran, own)
        for i, (variant, error) in enumerate(zip(variants, ran, strict=True), 1):
            failed += [f"{variant.label}: {error}"] * bool(error)
            entries += (found := table.entries_of(variant, directory))
            now = table.tabled(found, directory)  # also of a sweep that is cut off
            table.tabled(entries, directory)
            told = "; ".join(f"{name}: {text}" for name, text in now.items())
            print(f"{i}/{len(variants)}  seed={variant.experiment.seed} {told}", flush=True)
    summary = {"experiment": experiment.name, "members": len(entries)}
    for name in ("steps", "episodes", "updates"):
        summary[name] = sum(entry.summary.get(name, 0) for entry in entries)
    summary |= {"seconds": time.monotonic() - began, **table.tabled(entries, directory)}
    tracker = Tracker((Terminal(quiet=True), Json()))
    tracker.start(Run(experiment.name, directory, describe(experiment), 0, "steps"))
    tracker.finish(summary)
    if failed:
        raise NonFiniteError(f"{len(failed)} of {len(variants)} runs: {failed[0]}")
    return summary


def _ran(experiment) -> str:
    """Runs an experiment whose output goes to a log beside its folder; returns how it failed.

    Others may run beside it, and go on if it comes to NaN.
    """
    folder = pathlib.Path(experiment.directory)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.log", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        try:
            run(experiment)
        except NonFiniteError as error:
            return str(error)
    return ""


def _train(experiment, runs, checkpointer, note, sinks):
    """Trains the members of an experiment; returns the summary of the whole.

    The only one has the folder to itself. Several leave a run folder each below it; `members.csv`
    lays them side by side, and the plots show their mean and range.
    """
    tracker = Tracker((Terminal(experiment.quiet), Csv(), Json(), Plots(), *sinks))
    run = _run(experiment, checkpointer, checkpointer.directory, None, len(runs))
    whole = Recorder(experiment, run, tracker)
    members = [*_members(experiment, runs, checkpointer, tracker)] if len(runs) > 1 else []
    recorders = members or [whole]

    def log(reports, seconds):
        if members:
            tracker.log(table.row(members, reports, seconds))

    def finish():
        for member in members:
            member.tracker.finish(member.summary)
        if members:
            whole.summary = table.summarise(experiment, runs, members, run.directory)
        tracker.finish(whole.summary)

    with finished_by(recorders, finish):
        tracker.start(run)
        for member in members:
            member.tracker.start(member.run)
        if note:
            tracker.note(note)
        train(experiment, runs, recorders, checkpointer, log)
    return whole.summary


class _Faults(Sink):
    """Tells the whole what is wrong with a member."""

    def __init__(self, whole: Tracker, name: str):
        self._whole, self._name = whole, name

    def note(self, text: str) -> None:
        """Passes on warnings, and what ended it; that it was evaluated is in its own log."""
        if text.startswith("warning") or NAN in text:
            self._whole.note(f"{self._name}: {text.removeprefix(f'{self._name}: ')}")


def _members(experiment, runs, checkpointer, whole):
    """Yields the recorder of each of several members, whose folder is made."""
    evaluators: dict[str, Any] = {}
    for i, own in enumerate(sweep.alone(experiment, runs)):
        folder = checkpointer.directory / sweep.label(i, runs)
        folder.mkdir(parents=True, exist_ok=True)
        faults = _Faults(whole, folder.name)
        tracker = Tracker((Csv(), Json(), faults, *experiment.sinks()))
        yield Recorder(own, _run(own, checkpointer, folder, i), tracker, evaluators)


def _run(experiment, checkpointer, folder, member, count=1) -> Run:
    unit = "episodes" if experiment.steps is None else "steps"
    budget, config = count * getattr(experiment, unit), describe(experiment)
    return Run(experiment.name, folder, config, budget, unit, checkpointer.resumed_steps(member))


def _claimed(experiment) -> pathlib.Path:
    """Returns the directory of the run, new or, to be resumed, checked to be of the same."""
    if not experiment.resume:
        return _new_directory(experiment)
    if experiment.directory is None:
        raise SettingError("resume needs the folder of a run, got none; add --directory DIR")
    directory = pathlib.Path(experiment.directory)
    if not (directory / "config.json").exists():  # not begun
        return _new_directory(experiment)
    check_same(describe(experiment), directory)
    return directory


def _new_directory(experiment) -> pathlib.Path:
    now = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-seed{experiment.seed}"
    root = pathlib.Path("results") / experiment.name
    fresh = (root / (now + f"-{n}" * (n > 1)) for n in itertools.count(1))
    given = [] if experiment.directory is None else [pathlib.Path(experiment.directory)]
    for directory in given or fresh:
        check_folder(directory)
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
        f"directory must be new or empty, got {experiment.directory!r}, which holds files; "
        "choose another with --directory, remove it, or go on with it by --resume"
    )
