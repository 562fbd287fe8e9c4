"""A study from its settings to its folder: search, picture, and the winner put to the test."""

import datetime
import pathlib
import shlex

from rlws.analysis.comparison.outcome import Comparison
from rlws.analysis.comparison.sides import make_sides, scores
from rlws.analysis.comparison.verdict import judge
from rlws.runs.differences import KEPT, differing, shown
from rlws.runs.experiment import Experiment
from rlws.runs.folders import check_folder, read_json
from rlws.settings import SettingError, describe
from rlws.tracking.files import replacing, write_json
from rlws.tracking.interrupts import Interrupts
from rlws.tracking.progress import short
from rlws.tune.figure import study_figure
from rlws.tune.rounds import Winner
from rlws.tune.study import Search, Study


def tune(experiment: Experiment, search: Search) -> Comparison | None:
    """Searches the settings of an experiment; compares the winner with them as they are.

    Returns:
      The comparison, on seeds that the search has not seen; None where it was left out.

    Raises:
      SettingError: something cannot be; nothing was compiled or written.
    """
    directory = _directory(experiment)
    study = Study(experiment, search, directory)
    _claim(study)
    path = short(directory)
    method = f"{search.method}, {search.trials} trials"
    print(f"{experiment.name}: {method} of {experiment.steps:,} steps, in {path}", flush=True)
    remedy = f"go on with: the same command and --directory {path} --resume"
    with Interrupts(remedy) as signals, signals.opened():
        return _searched(study)


def _searched(study):
    say = lambda text: print(text, flush=True)
    directory, search = study.directory, study.search
    winner = study.run(say)
    pairs = [pair for turn in study.rounds.played for pair in turn.values()]
    with replacing(directory / "study.png") as path:
        study_figure(study.spaces, pairs, search.metric, study.experiment.name).savefig(path)
    say(f"trials.csv and study.png in {short(directory)}")
    say(f"winner: trial {winner.trial}: {_told(winner)}")
    if not search.confirm:
        say("its score is the best of many, so too high; --confirm 10 would test it")
        return None
    say(
        f"Its score is the best of {search.trials}, so too high. Now it and the default, each with "
        f"{search.confirm} seeds that the search has not seen:"
    )
    one, other = study.confirm(winner, say)
    sides, notes = make_sides([str(one)], [str(other)])
    ours, theirs = (scores(side, search.metric, None, {}) for side in sides)
    command = ["rlws", "compare", short(one), short(other)]
    command += ["--metric", search.metric]
    comparison = Comparison(
        sides=sides,
        scores=(ours, theirs),
        metric=search.metric,
        verdict=judge(ours, theirs, margin=0.0),
        looks=[],
        plan=None,
        notes=notes,
        command=shlex.join(command),
    )
    output = directory / "comparison"
    output.mkdir(exist_ok=True)
    comparison.write(output)
    from rich.console import Console

    comparison.show(Console(highlight=False))
    return comparison


def _told(winner: Winner) -> str:
    """Returns the settings of a winner as flags; of one whose settings changed, the last."""
    settings = winner.segments[-1][1]
    flags = (f"--{k.replace('_', '-')} {shown(describe(v))}" for k, v in settings.items())
    changed = f" (the last of {len(winner.segments)})" if len(winner.segments) > 1 else ""
    return " ".join(flags) + changed


def _directory(experiment: Experiment) -> pathlib.Path:
    if experiment.directory is not None:
        return pathlib.Path(experiment.directory)
    if experiment.resume:
        raise SettingError("resume needs the folder of a study, got none; add --directory DIR")
    now = f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}-seed{experiment.seed}"
    return pathlib.Path("results", "tune", experiment.name, now)


def _claim(study: Study) -> None:
    """Makes the folder of a study, or sees that it is of the same one.

    Raises:
      SettingError: it holds something else.
    """
    directory, path = study.directory, study.directory / "study.json"
    described = {"experiment": describe(study.experiment), "search": describe(study.search)}
    if path.exists() and study.experiment.resume:
        saved = read_json(directory, "study.json")
        kept = {f"experiment.{name}" for name in KEPT}
        found = differing(saved, described)
        if texts := [text for name, text in found.items() if not name.startswith((*kept,))]:
            raise SettingError(
                f"{directory} holds another study (saved, now): {'; '.join(texts)}; use those, or "
                "another --directory"
            )
        return
    check_folder(directory)
    if directory.exists() and any(directory.iterdir()):
        raise SettingError(
            f"directory must be new or empty, got {str(directory)!r}, which holds files; choose "
            "another with --directory, or go on with a study in it by --resume"
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_json(path, described)
