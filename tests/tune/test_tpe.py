"""Optuna's sampler: batches of trials, and a study of its own beside ours."""

import sys

import pytest

from rlws.settings import SettingError
from rlws.tune.spaces import Space
from rlws.tune.tpe import tpe
from tests.tune.test_methods import play

SPACES = (
    Space("agent.learning_rate", (), 1e-4, 1e-1, log=True),
    Space("agent.epochs", (), 1, 5, whole=True),
    Space("agent.backbone", ("mlp", "gru")),
)


def test_without_optuna_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingError, match=r"--method tpe needs .* pip install 'rlws\[tune\]'"):
        next(tpe(SPACES, 4, 10, 2, 0, tmp_path / "tpe.log"))


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


def score(job):
    if job.settings["agent.epochs"] == 5:
        return -float("inf")
    return -abs(job.settings["agent.learning_rate"] - 0.01) + (
        job.settings["agent.backbone"] == "gru"
    )


def test_trials_are_asked_for_in_batches_and_repeat(tmp_path, optuna):
    path = tmp_path / "tpe.log"
    found = play(tpe(SPACES, 30, 10, 4, 0, path), score)
    assert [len(jobs) for jobs in found] == [4] * 7 + [2]
    assert [job.trial for jobs in found for job in jobs] == [*range(30)]
    jobs = [job.settings for batch in found for job in batch]
    assert {type(x["agent.epochs"]) for x in jobs} == {int}
    assert all(1e-4 <= x["agent.learning_rate"] <= 1e-1 for x in jobs)
    assert play(tpe(SPACES, 30, 10, 4, 0, path), score) == found
    assert play(tpe(SPACES, 30, 10, 4, 1, tmp_path / "other.log"), score) != found


@pytest.mark.slow
def test_its_dashboard_finds_the_study(tmp_path, optuna):
    path = tmp_path / "tpe.log"
    rounds = play(tpe(SPACES, 6, 10, 3, 0, path), score)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="tune", storage=storage)
    jobs = [job for jobs in rounds for job in jobs]
    for trial, job in zip(study.trials, jobs, strict=True):
        assert trial.params["agent.learning_rate"] == job.settings["agent.learning_rate"]
        assert trial.value == (score(job) if score(job) > -100 else None)
