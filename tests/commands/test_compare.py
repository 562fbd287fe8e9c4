import csv
import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest

from rlws.__main__ import main
from rlws.analysis import statistics
from rlws.analysis.comparison import figure, more_seeds
from rlws.analysis.comparison.sides import make_sides, scores
from rlws.runs.folders import experiment_of
from rlws.settings import describe
from tests.commands.folders import write_run, write_seeds

HIGH, LOW = [10.0, 11, 12, 13, 14, 15], [0.0, 1, 2, 3, 4, 5]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_seeds(tmp_path / "a", HIGH, agent__learning_rate=0.1)
    write_seeds(tmp_path / "b", LOW)
    return tmp_path


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """The picture of a comparison takes longest, so only tests with `drawn` draw it."""
    if "drawn" not in request.fixturenames:
        nothing = SimpleNamespace(savefig=lambda path: path.touch())
        monkeypatch.setattr(figure, "comparison_figure", lambda comparison: nothing)


@pytest.fixture
def drawn():
    pass


def compare(*args):
    return main(["compare", *args])


def measured(folder="out"):
    with open(f"{folder}/comparison.json") as file:
        return json.load(file)


def test_compare_gives_the_numbers_of_the_statistics_module(here, capsys):
    assert compare("a", "b", "--output", "out") == 0
    ours, theirs = np.array(HIGH), np.array(LOW)
    found = measured()
    assert found["A"]["iqm"] == 12.5
    assert found["B"]["iqm"] == 2.5
    assert found["A"]["iqm_interval"] == [*statistics.interval(ours)]
    assert found["difference"] == 10
    assert found["difference_interval"] == [*statistics.difference_interval(ours, theirs)]
    assert found["improvement"] == 1
    assert found["improvement_interval"] == pytest.approx([1, 1])
    assert found["rank_sum_p"] == pytest.approx(2 / 924)
    assert (found["A"]["mean"], found["A"]["min"], found["A"]["max"]) == (12.5, 10, 15)
    assert found["verdict"]["outcome"] == "A"
    out = capsys.readouterr().out
    assert "A: learning_rate=0.1" in out
    assert "12.5 [" in out
    low, high = (f"{x:.4g}" for x in statistics.difference_interval(ours, theirs))
    assert (
        "A is better: learning_rate=0.1 beats learning_rate=0.003 "
        f"(A - B is 10, 95 % interval {low} to {high}; p = 0.0022)"
    ) in out


def test_compare_lists_every_run(here, drawn):
    compare("a", "b", "--output", "out")
    with open("out/comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[1] == {
        "side": "A",
        "environment": "jax:Catch",
        "seed": "1",
        "score": "11.0",
        "directory": "a/1_seed1",
    }
    assert [float(row["score"]) for row in rows if row["side"] == "B"] == LOW
    with open("out/comparison.png", "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("args", "outcome"),
    [
        (["b", "a"], "B"),
        (["a", "b", "--margin", "20"], "same"),
        (["a/0_seed0", "a/1_seed1", "--against", "b"], "undecided"),
        (["both"], "A"),
        (["a", "b", "--metric", "training_return_last_100"], "same"),  # all 2.5
        (["a", "b", "--metric", "evaluation_return_mean:min"], "B"),
    ],
)
def test_compare_verdicts_and_commands(args, outcome, here):
    (here / "both").mkdir()
    for name in "ab":
        (here / "both" / name).symlink_to(here / name)
    assert compare(*args, "--output", "out") == 0
    first = measured()
    assert first["verdict"]["outcome"] == outcome
    again = shlex.split(first["command"])
    assert again[0] == "rlws"
    assert main([*again[1:], "--output", "again"]) == 0
    assert measured("again") == first


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a"], "DIR must be A and B, or hold runs of two settings, got 1: toy"),
        (["a", "nowhere"], "DIR must be a folder that is there, got 'nowhere'"),
        (["a", "a"], "no run in common, got a/0_seed0 in both"),
        (["mixed", "b"], "A must be seeds of one setting, got 2: steps=400; steps=800"),
        (["other", "b"], "same environments, got gym:CartPole-v1 and jax:Catch"),
        (["a", "b", "--metric", "x"], "must be a number in the summary of a/0_seed0, got 'x'"),
        (["a", "b", "--margin", "-1"], "--margin must be at least 0 and finite, got -1.0"),
        (["a", "b", "--scale", "jax:Catch=3"], "ENVIRONMENT=LOW,HIGH"),
        (["a", "b", "--output", "b"], "--output must be new or empty, got 'b'"),
        (["a", "b", "--output", "a/config.json"], "--output must be a folder"),
        (["a", "b", "--until-decided", "--batch", "0"], "--batch must be at least 1, got 0"),
        (["a", "b", "--until-decided", "--max-seeds", "3"], "--max-seeds must be at least 4"),
        (["a", "b", "--until-decided", "--batch", "50"], "--batch must be at most --max-seeds=40"),
        (["a", "half"], "half must be finished, got unfinished"),
        (["a", "half", "--failed", "0"], "half must be finished, got unfinished"),
        (["a", "crashed"], "got ended by NonFiniteError: w; go on with it, leave it out, or let"),
        (["a", "stopped", "--failed", "0"], "stopped must be finished, got ended by Interrupted"),
    ],
)
def test_compare_explains_wrong_input_in_one_line(args, message, here, capsys):
    write_run(here / "mixed" / "x")
    write_run(here / "mixed" / "y", steps=800)
    write_run(here / "other", environment="gym:CartPole-v1")
    write_run(here / "half", summary={})
    write_run(here / "crashed", summary={"ended_by": "NonFiniteError: w"})
    write_run(here / "stopped", summary={"ended_by": "Interrupted: SIGTERM"})
    assert compare(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (here / "results").exists()


def test_compare_counts_what_failed_as_told(here):
    crashed = {"ended_by": "NonFiniteError: w", "evaluation_return_mean": 99.0}
    write_run(here / "a" / "5_seed5", seed=5, summary=crashed, agent__learning_rate=0.1)
    compare("a", "b", "--failed", "-7", "--output", "out")
    assert measured()["A"]["min"] == -7
    assert "--failed=-7.0" in measured()["command"]


@pytest.fixture
def two_environments(here):
    for name, values in {"a": HIGH, "b": LOW}.items():
        write_seeds(here / name / "pole", [100 * x for x in values], environment="jax:Pole")
        for path in ("members.csv", "config.json"):  # now a folder of runs
            (here / name / path).unlink()
    return here


def test_compare_of_several_environments_scales_each(two_environments, drawn, capsys):
    assert compare("a", "b") == 2
    assert "add --scale jax:Catch=RETURN_OF_0,RETURN_OF_1" in capsys.readouterr().err
    scales = ["--scale", "jax:Catch=0,10", "--scale", "jax:Pole=0,2000"]
    assert compare("a", "b", *scales, "--output", "out") == 0
    found = measured()
    ours = np.stack([np.array(HIGH) / 10, np.array(HIGH) / 20])
    theirs = np.stack([np.array(LOW) / 10, np.array(LOW) / 20])
    assert found["A"]["environments"] == ["jax:Catch", "jax:Pole"]
    assert found["A"]["iqm"] == pytest.approx(statistics.interquartile_mean(ours.ravel()))
    expected = statistics.difference_interval(ours, theirs)
    assert found["difference_interval"] == pytest.approx(expected)
    assert found["rank_sum_p"] == pytest.approx(2 / 924**2)
    assert "--scale jax:Pole=0,2000" in found["command"]


def test_compare_wants_as_many_seeds_in_each_environment(two_environments, capsys):
    write_run(two_environments / "a" / "more", seed=6, agent__learning_rate=0.1)
    assert compare("a", "b", "--scale", "jax:Catch=0,1", "--scale", "jax:Pole=0,1") == 2
    assert "A must have as many seeds in each environment, got 7 in jax:Catch, 6 in jax:Pole" in (
        capsys.readouterr().err
    )


def test_compare_notes_different_budgets_and_names_sides_of_equal_settings(here):
    write_seeds(here / "c", LOW, agent__learning_rate=0.1)
    compare("a", "c", "--output", "same")
    assert [measured("same")[side]["label"] for side in "AB"] == ["a/0_seed0", "c/0_seed0"]
    assert measured("same")["notes"] == []
    write_seeds(here / "d", LOW, steps=800)
    compare("b", "d", "--output", "longer")
    assert measured("longer")["notes"] == ["A and B were trained for different numbers of steps"]
    assert measured("longer")["A"]["label"] == "steps=400"


def trained(quality, asked):
    """Returns what stands for `train`: a run of seed s scores its quality and s."""

    def train(experiment, first, count, folder):
        rate = experiment.agent.learning_rate
        asked.append((rate, first, count))
        place = folder / f"seeds{first}"
        values = [quality[rate] + seed for seed in range(first, first + count)]
        write_seeds(place, values, first, agent__learning_rate=rate)
        return sorted(place.glob("*_seed*"))

    return train


@pytest.fixture
def asked(here, monkeypatch):
    found = []
    monkeypatch.setattr(more_seeds, "train", trained({0.1: 10.0, 0.003: 0.0}, found))
    return found


def test_until_decided_levels_the_sides_and_stops_at_the_verdict(here, asked, capsys):
    for i in (3, 4, 5):
        (here / "b" / f"{i}_seed{i}" / "config.json").unlink()
    (here / "b" / "members.csv").unlink()
    args = ["a", "b", "--until-decided", "--batch", "4", "--max-seeds", "16"]
    assert compare(*args, "--output", "out") == 0
    # 4 seeds are too few at the first level; A has 6 and B has 3.
    assert asked == [(0.003, 3, 1), (0.1, 6, 2), (0.003, 4, 4)]
    found = measured()
    assert found["verdict"]["outcome"] == "A"
    assert (found["A"]["seeds"], found["B"]["seeds"]) == (8, 8)
    looks = found["until_decided"]["looks"]
    assert [look["seeds"] for look in looks] == [4, 8]
    assert looks[1]["p"] == pytest.approx(statistics.rank_sum_p(np.arange(8) + 10.0, np.arange(8)))
    assert looks[1]["p"] <= looks[1]["level"] < 0.05
    assert "4 seeds each: undecided" in capsys.readouterr().out


def test_until_decided_command_comes_to_the_verdict_without_training(here, asked):
    compare("a", "b", "--until-decided", "--batch", "8", "--max-seeds", "16", "--output", "out")
    first = measured()
    assert first["command"] == (
        "rlws compare a out/A --against b out/B --until-decided --batch 8 --max-seeds 16"
    )
    asked.clear()
    assert main([*shlex.split(first["command"])[1:], "--output", "again"]) == 0
    assert asked == []
    assert measured("again") == first


def test_until_decided_gives_up_at_the_maximum(here, asked, monkeypatch):
    monkeypatch.setattr(more_seeds, "train", trained({0.1: 0.0, 0.003: 0.0}, asked))
    write_seeds(here / "a", LOW, agent__learning_rate=0.1)
    compare("a", "b", "--until-decided", "--batch", "3", "--max-seeds", "8", "--output", "out")
    assert measured()["verdict"]["outcome"] == "undecided"
    assert [look["seeds"] for look in measured()["until_decided"]["looks"]] == [3, 6, 8]
    assert asked == [(0.1, 6, 2), (0.003, 6, 2)]


@pytest.mark.slow
def test_train_runs_seeds_in_one_program_with_the_settings_of_the_run(here):
    backbone = {"type": "rlws.networks.backbones:MLP", "hidden_sizes": [8]}
    write_run(here / "real", steps=40, agent__backbone=backbone, trainer__num_envs=2)
    experiment = experiment_of(here / "real")
    (here / "real" / "config.json").write_text(json.dumps(describe(experiment)))  # with defaults
    found = more_seeds.train(experiment, 3, 2, here / "new")
    assert [path.name for path in found] == ["0_seed3", "1_seed4"]
    sides, _ = make_sides(["real"], [str(here / "new")])
    assert sides[0].label == "real"  # no setting differs
    assert [result.seed for result in sides[1].results] == [3, 4]
    assert np.isfinite(scores(sides[1], "evaluation_return_mean", None, {})).all()
