"""Studies of seconds: what they leave, that they repeat, and that they go on after a kill."""

import csv
import dataclasses
import json
import math
import shutil

import jax
import jax._src.monitoring as monitoring
import numpy as np
import pytest

from rlws.numerics import checkpoint, trees
from rlws.runs import launch
from rlws.runs.experiment import Checkpoints
from rlws.runs.folders import experiment_of
from rlws.settings import SettingError
from rlws.trainers import HostTrainer
from rlws.tune import journal, methods, rounds, tune
from rlws.tune.study import Search, Study
from rlws.tune.trials import Trials
from tests.commands.toys import TOY, arrays, rows

SPACE = "agent.learning-rate=log:1e-4:1e-1"
DISCOUNT = "agent.discount=0.5:0.99"
TINY = dataclasses.replace(TOY, steps=160, checkpoint=Checkpoints())
SEARCH = Search(
    space=(SPACE, DISCOUNT), trials=6, method="asha", parallel=4, eta=2, rungs=3, confirm=0
)


def search(directory, of=TINY, **changes):
    """Runs a study; returns what its folder says of each trial."""
    resume = changes.pop("resume", False)
    experiment = dataclasses.replace(of, directory=str(directory), resume=resume)
    tune.tune(experiment, dataclasses.replace(SEARCH, **changes))
    return table(directory)


def table(directory):
    with open(directory / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def asha(tmp_path_factory):
    """A study that was left in peace, and how often something was compiled in each round."""
    counts, directory = [0], tmp_path_factory.mktemp("asha") / "study"
    event = "/jax/core/compile/backend_compile_duration"
    listener = lambda name, *args, **kwargs: counts.__setitem__(-1, counts[-1] + (name == event))
    jax.monitoring.register_event_duration_secs_listener(listener)
    add = journal.Journal.add

    def adding(self, job, score):
        counts.append(0)
        add(self, job, score)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "add", adding)
        search(directory)
    monitoring.unregister_event_duration_listener(listener)
    return directory, counts


@pytest.mark.slow
def test_losers_are_replaced_without_compiling_again(asha):
    directory, counts = asha
    lines = (directory / "journal.jsonl").read_text().splitlines()
    assert len(lines) == len(counts) - 1 > 10
    # The first round has four jobs; with the second, members are gathered for the first time.
    assert counts[0] > 0
    assert not any(counts[6:]), counts


@pytest.mark.slow
def test_each_trial_is_the_run_that_it_would_be_by_itself(asha, tmp_path):
    directory, _ = asha
    last = max(table(directory), key=lambda row: (int(row["steps"]), int(row["trial"])))
    assert last["steps"] == "160"
    folder = directory / "trials" / f"{int(last['trial']):03d}" / "seed0"
    own = experiment_of(folder)
    assert own.agent.learning_rate == float(last["agent.learning_rate"])
    assert own.agent.discount == float(last["agent.discount"])
    alone = dataclasses.replace(own, directory=str(tmp_path / "alone"), resume=False)
    summary = launch.run(alone)
    found = json.loads((folder / "summary.json").read_text())
    for name in ("steps", "episodes", "updates", "evaluation_return_mean"):
        assert found[name] == pytest.approx(summary[name], abs=1e-3), name
    assert float(last["score"]) == found["evaluation_return_mean"]
    ours, theirs = arrays(folder), arrays(tmp_path / "alone")
    numbers = lambda data: np.frombuffer(data, np.float32)
    for name in theirs:
        if name.startswith("run/state/learner/params"):
            np.testing.assert_allclose(numbers(ours[name]), numbers(theirs[name]), atol=2e-4)
    # And it goes on as one.
    copy = shutil.copytree(folder, tmp_path / "copy")
    more = dataclasses.replace(own, directory=str(copy), resume=True, steps=200)
    assert launch.run(more)["steps"] >= 200


class Killed(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, *(pytest.param(i, marks=pytest.mark.slow) for i in (6, 9))])
def test_a_study_that_was_killed_goes_on_to_the_same(asha, tmp_path, monkeypatch, at):
    directory, _ = asha
    add, count = journal.Journal.add, [0]

    def adding(self, job, score):
        count[0] += 1
        if count[0] == at:
            raise Killed
        add(self, job, score)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "add", adding)
        with pytest.raises(Killed):
            search(tmp_path / "study")
    half = (tmp_path / "study" / "journal.jsonl").read_text()
    assert half.count("\n") == at - 1
    with open(tmp_path / "study" / "journal.jsonl", "a") as file:
        file.write('{"trial": 3, "ste')  # cut in two
    assert search(tmp_path / "study", resume=True) == table(directory)
    one, other = (path / "journal.jsonl" for path in (directory, tmp_path / "study"))
    assert other.read_text() == one.read_text()
    for row in table(directory):
        place = f"trials/{int(row['trial']):03d}/seed0"
        assert rows(tmp_path / "study" / place) == rows(directory / place)


@pytest.mark.slow
def test_a_study_of_other_settings_is_not_gone_on_with(asha):
    directory, _ = asha
    with pytest.raises(SettingError, match=r"holds another study \(saved, now\): search.trials: 6"):
        search(directory, resume=True, trials=7)
    with pytest.raises(SettingError, match="directory must be new or empty"):
        search(directory)


@pytest.mark.slow
def test_a_population_copies_states_and_changes_settings(tmp_path):
    directory = tmp_path / "study"
    search(directory, method="pbt", trials=4, rounds=2)
    with open(directory / "journal.jsonl") as file:
        jobs = [json.loads(line) for line in file]
    order = sorted(range(4), key=lambda i: (jobs[i]["score"], -i))
    worst, best = order[0], order[-1]
    changed = [i for i in range(4) if jobs[i]["settings"] != jobs[4 + i]["settings"]]
    assert changed == [worst]
    folders = [directory / "trials" / f"{i:03d}" for i in range(4)]
    with open(folders[worst] / "history.csv") as file:
        history = list(csv.DictReader(file))
    assert [row["parent"] for row in history] == ["", str(best)]
    seeds = [experiment_of(folder / f"seed{i}").seed for i, folder in enumerate(folders)]
    assert seeds == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_who_copies_has_the_state_of_its_parent(tmp_path, parallel, monkeypatch):
    # It does not learn and draws nothing that is its own: what it has is what it took.
    taken = {}
    from rlws.tune import together

    placed = together._Group._placed

    def placing(self, compiled, runs, before, total):
        run, tallies = placed(self, compiled, runs, before, total)
        for i, (job, _) in enumerate(runs):
            if job.parent is not None:
                taken[job.trial] = job, jax.tree.map(lambda x, i=i: np.array(x[i]), run)
        return run, tallies

    monkeypatch.setattr(together._Group, "_placed", placing)
    search(tmp_path / "study", method="pbt", trials=4, parallel=parallel, rounds=2)
    ((trial, (job, run)),) = taken.items()
    folder = lambda i: tmp_path / "study" / "trials" / f"{i:03d}" / f"seed{i}" / "checkpoints"
    saved = lambda i: checkpoint.newest(folder(i), print, at=80).arrays
    parent, own = saved(job.parent), saved(trial)
    flat = trees.flatten({"run": run})
    assert flat.keys() == {name for name in parent if name.startswith("run/")}
    for name, x in flat.items():
        if "/totals/" in name:
            assert not np.any(x)
        else:
            np.testing.assert_array_equal(x, (own if "/keys/" in name else parent)[name], name)
    assert not np.array_equal(own["run/keys/act"], parent["run/keys/act"])


@pytest.mark.slow
@pytest.mark.thorough
def test_settings_that_are_not_real_numbers_have_programs_of_their_own(tmp_path):
    space = ("agent.unroll-length=10,20", SPACE)
    found = search(tmp_path / "study", space=space, method="halving", trials=4, rungs=2)
    assert sorted(row["agent.unroll_length"] for row in found) == ["10", "10", "20", "20"]
    assert sorted(row["steps"] for row in found) == ["160", "160", "80", "80"]


@pytest.mark.slow
def test_the_winner_is_compared_with_the_default_on_seeds_it_has_not_seen(asha, tmp_path, capsys):
    study = tmp_path / "study"
    shutil.copytree(asha[0], study)
    saved = json.loads((study / "study.json").read_text())
    saved["search"]["confirm"] = 2
    (study / "study.json").write_text(json.dumps(saved))
    search(study, resume=True, confirm=2)
    out = capsys.readouterr().out
    assert "2 seeds that the search has not seen" in out
    command = f"rlws compare {study}/confirm/winner {study}/confirm/default"
    assert command in out
    assert "undecided: 2 and 2 seeds are too few" in out
    winner = table(study)[2]  # the only one that got to the end
    assert winner["steps"] == "160"
    for side, discount in (("winner", float(winner["agent.discount"])), ("default", 0.99)):
        folders = [study / "confirm" / side / f"seed{i}" for i in (1, 2)]
        assert [experiment_of(folder).seed for folder in folders] == [1, 2]
        assert {experiment_of(folder).agent.discount for folder in folders} == {discount}
        assert {json.loads((f / "summary.json").read_text())["steps"] > 159 for f in folders}


@pytest.mark.slow
def test_a_winner_of_changing_settings_is_confirmed_with_the_changes(asha):
    turns = [{}, {}, {}]
    at = lambda trial, value, steps, parent=None: (
        methods.Job(trial, {"x": value}, steps, parent),
        float(trial),
    )
    turns[0] = {0: at(0, 1.0, 10), 1: at(1, 2.0, 10), 2: at(2, 3.0, 10)}
    turns[1] = {0: at(0, 1.0, 20), 1: at(1, 2.4, 20, 0), 2: at(2, 3.0, 20)}
    turns[2] = {0: at(0, 1.0, 30), 1: at(1, 2.4, 30), 2: at(2, 2.5, 30, 1)}
    played = rounds.Rounds(journal.Journal(asha[0] / "none.jsonl"), 0.0)
    played.played = turns
    assert played.best() == (2, 2.0, [(10, {"x": 1.0}), (20, {"x": 2.4}), (30, {"x": 2.5})])


HOST = dataclasses.replace(TINY, environment="gym:CartPole-v1", trainer=HostTrainer(num_envs=2))


@pytest.mark.slow
def test_trials_on_a_host_are_runs_by_themselves(tmp_path):
    how = dict(of=HOST, method="halving", trials=4, rungs=2, seeds=2)
    found = search(tmp_path / "study", **how)
    assert sorted(row["steps"] for row in found) == ["160", "160", "80", "80"]
    for row in found:
        folder = tmp_path / "study" / "trials" / f"00{row['trial']}"
        ends = [json.loads((folder / f"seed{i}" / "summary.json").read_text()) for i in (0, 1)]
        scores = [end["evaluation_return_mean"] for end in ends]
        assert float(row["score"]) == pytest.approx(np.mean(scores))
        assert {end["steps"] - int(row["steps"]) for end in ends} <= {0, 1}  # of two environments
    assert search(tmp_path / "study", resume=True, **how) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(of=dataclasses.replace(TINY, sweep=("seed=0..1",))), "say what varies by --space"),
        (dict(of=dataclasses.replace(TINY, steps=None, episodes=3)), "add --steps"),
        (dict(metric="evaluation_retrun_mean"), "did you mean 'evaluation_return_mean'"),
        (dict(of=HOST, method="pbt"), "and the trainer device, got a host trainer; try"),
        (dict(space=("agent.epochs=1:3",), method="pbt"), r"must be real .*got agent\.epochs"),
        (dict(space=("trainer.environment-timeout=1:9.5",)), "has no setting"),
    ],
)
def test_what_cannot_be_is_named_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(SettingError, match=message):
        search(tmp_path / "study", **changes)
    assert not (tmp_path / "study").exists()


def test_a_metric_has_a_short_name(tmp_path):
    study = Study(TINY, dataclasses.replace(SEARCH, metric="return"), tmp_path / "study")
    assert study.search.metric == "evaluation_return_mean"


def test_of_what_should_be_small_less_is_better(tmp_path):
    asked = dataclasses.replace(SEARCH, metric="return:min")
    study = Study(TINY, asked, tmp_path / "study")
    assert study.search.metric == "evaluation_return_mean:min"
    trials = Trials(TINY, [0], tmp_path, study.search.metric, True)
    scored = [trials.score([{"evaluation_return_mean": x}]) for x in (1.0, 3.0)]
    assert scored == [-1.0, -3.0]
    assert trials.score([{"evaluation_return_mean": 1.0, "ended_by": "NaN"}]) == -math.inf
    with pytest.raises(SettingError, match=r"after the colon: unknown value .mni."):
        Study(TINY, dataclasses.replace(SEARCH, metric="return:mni"), tmp_path / "study")
