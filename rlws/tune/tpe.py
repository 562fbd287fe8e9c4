"""Optuna's sampler: a tree-structured Parzen estimator.

Bergstra et al., 2011, "Algorithms for hyper-parameter optimization". Its study is kept beside ours,
for `optuna-dashboard tpe.log`; it is written anew from our journal when a study goes on.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlws.settings import importing
from rlws.tune.methods import Job, Plan
from rlws.tune.spaces import Space


def optuna() -> Any:
    """Returns the package, quiet.

    Raises:
      SettingError: it is not installed.
    """
    with importing("--method tpe", "tune"):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def distributions(spaces: Sequence[Space]) -> dict[str, Any]:
    """Returns the spaces as Optuna has them; choices by their numbers."""
    of = optuna().distributions
    found: dict[str, Any] = {}
    for space in spaces:
        if space.choices:
            found[space.name] = of.CategoricalDistribution([*range(len(space.choices))])
        elif space.whole:
            found[space.name] = of.IntDistribution(int(space.low), int(space.high), log=space.log)
        else:
            found[space.name] = of.FloatDistribution(space.low, space.high, log=space.log)
    return found


def tpe(
    spaces: Sequence[Space], count: int, steps: int, batch: int, seed: int, path: pathlib.Path
) -> Plan:
    """Asks for so many trials at a time, and trains every one to the end."""
    package, known = optuna(), distributions(spaces)
    path.unlink(missing_ok=True)
    backend = package.storages.journal.JournalFileBackend(str(path))
    study = package.create_study(
        storage=package.storages.JournalStorage(backend),
        # Of those asked for together, each is to know that the others are under way.
        sampler=package.samplers.TPESampler(seed=seed, constant_liar=True),
        study_name="tune",
        direction="maximize",
    )
    for begin in range(0, count, batch):
        asked = [study.ask(known) for _ in range(min(batch, count - begin))]
        value = lambda x, space: space.choices[x] if space.choices else space.within(x)
        jobs = [
            Job(begin + i, {s.name: value(trial.params[s.name], s) for s in spaces}, steps)
            for i, trial in enumerate(asked)
        ]
        scores = yield jobs
        for trial, score in zip(asked, scores, strict=True):
            if np.isfinite(score):
                study.tell(trial, score)
            else:
                study.tell(trial, state=package.trial.TrialState.FAIL)
