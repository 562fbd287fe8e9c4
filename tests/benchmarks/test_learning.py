import csv
import json
import shlex
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from agents_zoo import reinforce
from benchmarks import learning
from benchmarks.learning import Result
from benchmarks.rows import ROWS, Row
from rlws.analysis.statistics import interval
from rlws.runs.check import check_experiment
from rlws.runs.experiment import Experiment
from rlws.settings import SettingError, describe
from rlws.trainers import Progress, Trainer

RANDOM = -50.0
CRASHES, HALTS, IS_NAN, ENDS_NOTHING = 13, 15, 17, 19  # seeds


class Scripted(Trainer):
    """An episode of return seed + steps at each report; a crash is that of all members."""

    def train_all(self, config, environment, members, *, steps=None, episodes=None, report_period):
        seeds = [member.seed for member in members]
        for now in range(0, steps + 1, report_period):
            if now and CRASHES in seeds:
                raise FloatingPointError("too\nlarge")
            yield {i: self._report(seed, now, steps) for i, seed in enumerate(seeds)}

    def _report(self, seed, now, steps):
        returns = np.array([seed + now] if now and seed != ENDS_NOTHING else [], float)
        ends = bool(now) and seed == HALTS
        spent = now == steps and not ends
        return Progress(
            now, 0, 0, returns, returns, {}, None, {"seed": seed}, spent, dict, halted=ends
        )


ROW = Row(
    reinforce.Config(),
    "jax:Catch",
    40,  # steps, so a report every 2
    {"match": ("T", 22.5), "stretch": ("T", 30.0)},
    RANDOM,
    "nobody",
    Scripted(),
    episodes=3,
)


@pytest.fixture
def scripted_evaluation(monkeypatch):
    """E is ten times the seed."""

    def evaluator(agent, environment, episodes):
        bad = lambda seed: np.nan if seed == IS_NAN else 10.0 * seed
        return lambda params, seed: (np.full(episodes, bad(params["seed"])), None)

    monkeypatch.setattr(learning.evaluation, "evaluator", evaluator)


def curve(seed):
    return [(steps, seed + (2 + steps) / 2) for steps in range(2, 41, 2)]


@pytest.mark.usefixtures("scripted_evaluation")
def test_run_gives_the_scores_of_the_end_and_the_curve():
    found = list(learning.run(ROW, [1, 2]))
    assert [(r.seed, r.T, r.E, r.failure) for r in found] == [(1, 22, 10, ""), (2, 23, 20, "")]
    assert [r.curve[1:] for r in found] == [curve(1), curve(2)]
    assert all(np.isnan(r.curve[0][1]) for r in found)  # no episode has ended


@pytest.mark.usefixtures("scripted_evaluation")
def test_run_scores_a_crash_as_random_and_keeps_the_other_seeds():
    found = {r.seed: r for r in learning.run(ROW, [12, CRASHES, 14])}
    assert sorted(found) == [12, 13, 14]
    assert found[13] == Result(13, RANDOM, RANDOM, [], "FloatingPointError: too large")
    for seed in (12, 14):
        assert found[seed][:3] == (seed, seed + 21, 10 * seed)
        assert not found[seed].failure


@pytest.mark.usefixtures("scripted_evaluation")
def test_run_scores_what_is_not_finite_as_random():
    nan, nothing = learning.run(ROW, [IS_NAN, ENDS_NOTHING])
    assert (nan.T, nan.E, nan.failure) == (IS_NAN + 21, RANDOM, "E not finite")
    assert (nothing.T, nothing.E, nothing.failure) == (RANDOM, 190, "T not finite")


@pytest.mark.usefixtures("scripted_evaluation")
def test_run_scores_a_seed_that_came_to_nan_once_as_random():
    found = list(learning.run(ROW, [12, HALTS, 14]))
    assert [result.seed for result in found] == [HALTS, 12, 14]
    text = "update 0, at 2 steps, came to NaN or infinity"
    assert found[0] == Result(HALTS, RANDOM, RANDOM, [], text)


def test_run_lets_an_interruption_through(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning.evaluation, "evaluator", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(learning.run(ROW, [1]))


@pytest.mark.usefixtures("scripted_evaluation")
def test_aligned_has_a_point_for_each_report_and_random_for_lost_seeds():
    results = list(learning.run(ROW, [1, CRASHES, ENDS_NOTHING]))
    steps, curves = learning.aligned(sorted(results), ROW)
    assert list(steps) == list(range(2, 41, 2))
    np.testing.assert_array_equal(curves, [[y for _, y in curve(1)], [RANDOM] * 20, [RANDOM] * 20])


def test_aligned_begins_where_each_seed_has_ended_an_episode():
    nan = float("nan")
    late = Result(0, 0, 0, [(0, nan), (3, nan), (5, 1.0), (7, 2.0), (10, 3.0)])
    early = Result(1, 0, 0, [(0, nan), (2, 7.0), (5, 8.0), (10, 9.0)])
    steps, curves = learning.aligned([late, early], ROW._replace(steps=10))
    assert list(steps) == [4, 5, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(curves[0], [1, 1, 2, 2, 3, 3, 3])
    np.testing.assert_array_equal(curves[1], [8, 8, 9, 9, 9, 9, 9])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(484, 490, "match"), (475, 490, "undecided"), (470, 482, "fail"), (483, 500, "match")],
)
def test_verdict(low, high, expected):
    assert learning.verdict(low, high, 483) == expected


PEER_ROW = ROW._replace(references={"match": ("T", 100.0)}, random=0.0)  # margin 2


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (np.arange(110.0, 130), np.full(10, 100.0), "beat"),
        # Better more often than not, but only where the interquartile mean does not look.
        (np.repeat([100.0, 110], [14, 6]), np.full(20, 100.0), "match"),
        (np.full(10, 99.0), np.full(10, 100.0), "match"),
        (np.full(10, 97.0), np.full(10, 100.0), "fail"),
        (np.arange(90.0, 112), np.full(10, 100.0), "undecided"),
        (np.arange(110.0, 130), np.full(10, 97.0), "void"),  # they do not reach their own 100
    ],
)
def test_against_peer(ours, theirs, expected):
    found = learning.against_peer(ours, theirs, PEER_ROW)
    assert found["verdict"] == expected
    iqm = learning.interquartile_mean
    assert found["difference"] == pytest.approx(iqm(ours) - iqm(theirs))


def summary_of(seeds, **changes):
    row = ROW._replace(**changes)
    results = list(learning.run(row, seeds))
    return results, learning.summarise(row, sorted(results), None)


@pytest.mark.usefixtures("scripted_evaluation")
def test_summary_of_four_seeds_is_that_worked_by_hand():
    _, summary = summary_of([1, 2, 3, CRASHES])  # T 22, 23, 24 and -50
    scores = np.array([22.0, 23, 24, RANDOM])
    assert summary["scores"]["T"] == {
        "iqm": 22.5,
        "interval": interval(scores),
        "mean": 19 / 4,
        "worst": RANDOM,
        "worst_seed": CRASHES,
        "best": 24,
    }
    assert summary["scores"]["E"]["iqm"] == 15
    assert summary["references"]["match"] == {
        "score": "T",
        "value": 22.5,
        "tolerance": pytest.approx(0.02 * 72.5),
        "verdict": "undecided",
        "fraction_at_or_above": 0.5,
        # Worked by Wilson's formula: (1/2 + z^2/8 -+ z sqrt(1/16 + z^2/64)) / (1 + z^2/4).
        "fraction_interval": pytest.approx([0.1500, 0.8500], abs=1e-4),
    }
    assert summary["references"]["stretch"]["verdict"] == "fail"
    assert summary["references"]["stretch"]["tolerance"] == 0
    assert summary["failures"] == {"13": "FloatingPointError: too large"}
    # The middle two curves are those of seeds 1 and 2: 1.5 + (2 + steps) / 2.
    assert summary["steps_to_match"] == 40


@pytest.mark.usefixtures("scripted_evaluation")
def test_steps_to_match_are_the_first_at_the_threshold_and_of_T_only():
    steps = lambda *reference: summary_of([1], references={"match": reference})[1]["steps_to_match"]
    assert steps("T", 10.0) == 16
    assert steps("T", 10.1) == 18
    assert steps("T", 22.1) is None
    assert steps("E", 10.0) is None


@pytest.mark.usefixtures("scripted_evaluation")
@pytest.mark.parametrize(("count", "nominal"), [(10, True), (11, False)])
def test_intervals_of_few_seeds_are_called_nominal(count, nominal):
    results, summary = summary_of(range(count))
    assert summary["nominal"] == nominal
    lines = [x for x in learning.lines(summary) if x.startswith(("T:", "E:", "match:", "stretch:"))]
    assert len(lines) == 4
    assert all(("] nominal" in line) == nominal for line in lines)
    labels = [t.get_text() for t in learning.figure("0", ROW, results).legends[0].get_texts()]
    assert ("95 % bootstrap interval (nominal)" in labels) == nominal


@pytest.mark.usefixtures("scripted_evaluation")
def test_lines_state_verdicts_with_their_intervals():
    _, summary = summary_of([3] * 12)
    assert list(learning.lines(summary)) == [
        "T: IQM 24.0 [24.0, 24.0]  mean 24.0  worst 24.0 (seed 3)  best 24.0",
        "E: IQM 30.0 [30.0, 30.0]  mean 30.0  worst 30.0 (seed 3)  best 30.0",
        "match: T 24.0 [24.0, 24.0] against 22.5: MATCH; 100% [76%, 100%] of seeds at or above",
        "stretch: T 24.0 [24.0, 24.0] against 30: FAIL; 0% [0%, 24%] of seeds at or above",
        "IQM of T at the match threshold after 38 steps",
    ]


@pytest.mark.usefixtures("scripted_evaluation")
def test_figure_shows_the_curve_its_interval_and_the_references_of_T():
    results, _ = summary_of([1, 2, 3, 4])
    row = ROW._replace(references={"match": ("T", 22.5), "stretch": ("E", 7.0)})
    axes = learning.figure("0", row, results).axes[0]
    assert axes.get_title(loc="left") == "Row 0: REINFORCE in jax:Catch, 4 seeds"
    assert axes.get_xlabel() == "environment steps"
    assert "reward" in axes.get_ylabel()
    lines = {line.get_label(): line for line in axes.get_lines()}
    steps, values = lines["interquartile mean"].get_data()
    assert list(zip(steps, values, strict=True)) == curve(2.5)
    assert set(lines["match 22.5"].get_ydata()) == {22.5}
    assert not any("stretch" in label for label in lines)
    corners = axes.collections[0].get_paths()[0].vertices
    expected = interval(np.array([22.0, 23, 24, 25]))
    assert {*corners[corners[:, 0] == 40, 1]} == {*expected}


@pytest.fixture
def folder(tmp_path, monkeypatch, scripted_evaluation):
    """What is left by the command on a row of no training; seed 1000 scores 1021."""
    row = ROW._replace(references={"match": ("T", 1022.0), "stretch": ("T", 2000.0)})
    monkeypatch.setitem(ROWS, "0", row)
    return tmp_path / "new" / "folder"


def arguments(folder, *more):
    seeds = ("--seeds", "2", "--first-seed", "1000")
    return ["--row", "0", *seeds, "--output", str(folder), *more]


def test_main_leaves_tables_curves_figure_and_what_it_takes_to_repeat(folder, capsys):
    command = arguments(folder, "--set", "discount=0.9")
    learning.main(command)
    assert sorted(path.name for path in folder.iterdir()) == [
        "row0.csv",
        "row0.json",
        "row0.png",
        "row0_curves.csv",
    ]
    read = lambda name: list(csv.DictReader((folder / name).read_text().splitlines()))
    table, points = read("row0.csv"), read("row0_curves.csv")
    assert [line["seed"] for line in table] == ["1000", "1001"]
    for line in table:
        own = [point for point in points if point["seed"] == line["seed"]]
        assert len(own) == 20
        assert own[-1]["steps"] == "40"
        assert own[-1]["return_last_100"] == line["T"]
        assert float(line["T"]) == int(line["seed"]) + 21
        assert float(line["E"]) == 10 * int(line["seed"])
        assert line["failure"] == ""
    summary = json.loads((folder / "row0.json").read_text())
    assert summary["command"] == "python -m benchmarks.learning " + shlex.join(command)
    assert summary["agent"] == describe(replace(ROWS["0"].agent, discount=0.9))
    assert summary["seeds"] == [1000, 1001]
    assert summary["tuning"]  # as a setting was changed
    assert {"python", "jax", "numpy"} <= set(summary["versions"])
    scores = [float(line["T"]) for line in table]
    assert summary["scores"]["T"]["mean"] == pytest.approx(np.mean(scores))
    assert summary["scores"]["T"]["interval"] == pytest.approx(interval(np.array(scores)))
    assert matplotlib.image.imread(folder / "row0.png").shape == (660, 960, 4)
    printed = capsys.readouterr().out
    assert "match: T" in printed
    assert "FAIL" in printed


def test_main_compares_with_a_peers_scores(folder, capsys, tmp_path):
    path = tmp_path / "peer.csv"
    path.write_text(
        "seed,T\n" + "".join(f"{seed},{1020.5 + seed}\n" for seed in range(5)) + "5,nan\n"
    )
    learning.main(arguments(folder, "--peer", str(path)))
    summary = json.loads((folder / "row0.json").read_text())
    assert not summary["tuning"]
    assert summary["peer"]["seeds"] == 6
    assert summary["peer"]["iqm"] == pytest.approx(np.mean([1020.5, 1021.5, 1022.5, 1023.5]))
    assert summary["peer"]["verdict"] == "void"  # its lost seed counts as random
    assert "VOID; probability of improvement 0.42" in capsys.readouterr().out


def test_main_says_at_once_what_cannot_be_run(folder, tmp_path):
    with pytest.raises(SettingError, match="discount"):
        learning.main(arguments(folder, "--set", "discount=2"))
    (tmp_path / "peer.csv").write_text("seed,T\n")
    with pytest.raises(SettingError, match="--peer must hold"):
        learning.main(arguments(folder, "--peer", str(tmp_path / "peer.csv")))
    assert not folder.exists()


@pytest.mark.parametrize("name", ROWS)
def test_rows_can_be_run(name):
    row = ROWS[name]
    try:
        check_experiment(Experiment(name, row.environment, row.agent, row.trainer, row.steps))
    except SettingError as error:
        if "package that is missing" not in str(error):
            raise
        pytest.skip(str(error))
    assert set(row.references) <= {"match", "stretch"}


@pytest.mark.slow
@pytest.mark.exact  # compiled for speed it takes a third of the time
def test_reinforce_solves_cartpole_within_200_000_steps():
    # How many of five do depends on the processor, whose vectors are as wide as they are.
    results = list(learning.run(ROWS["1"], range(10)))
    assert [r.curve[-1][1] for r in results] == pytest.approx([r.T for r in results])
    assert sum(r.E >= 475 for r in results) >= 6
    assert sum(r.T >= 475 for r in results) >= 8
    for scores in ([r.E for r in results], [r.T for r in results]):
        assert learning.interquartile_mean(np.array(scores)) >= 475
