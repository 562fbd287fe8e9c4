import math

import numpy as np
import pytest

from rlws.analysis import results
from rlws.settings import SettingError
from tests.commands.folders import write_run, write_seeds


def names(found):
    return [result.directory.name for result in found]


def test_gather_finds_runs_sweeps_and_folders_of_them_once(tmp_path):
    write_run(tmp_path / "toy" / "one", seed=7)
    sweep = write_seeds(tmp_path / "toy" / "sweep", [1, 2])
    assert names(results.gather([tmp_path / "toy" / "one"])) == ["one"]
    assert names(results.gather([sweep])) == ["0_seed0", "1_seed1"]
    assert names(results.gather([sweep, tmp_path])) == ["0_seed0", "1_seed1", "one"]
    (sweep / "members.csv").unlink()  # it has not ended
    assert names(results.gather([sweep])) == ["0_seed0", "1_seed1"]


def test_gather_does_not_take_what_a_run_keeps_for_runs(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "000000000100").mkdir(parents=True)
    (run / "plots").mkdir()
    assert names(results.gather([run])) == ["run"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_gather_says_where_no_run_is(make, tmp_path):
    make(tmp_path / "nothing")
    with pytest.raises(SettingError, match=r"DIR must be a folder.*nothing.*rlws list runs"):
        results.gather([tmp_path / "nothing"])


def test_groups_differ_in_more_than_seeds(tmp_path):
    write_seeds(tmp_path / "a", [1, 2], agent__learning_rate=0.1)
    write_run(tmp_path / "b", seed=5, score=9.0)
    write_run(tmp_path / "c", seed=2, score=3.0, agent__learning_rate=0.1, name="renamed")
    groups, notes = results.grouped(results.gather([tmp_path]))
    assert [group.label for group in groups] == ["learning_rate=0.1", "learning_rate=0.003"]
    assert [[r.seed for r in group.results] for group in groups] == [[0, 1, 2], [5]]
    np.testing.assert_array_equal(groups[0].numbers(results.SCORE), [1, 2, 3])
    assert notes == []


@pytest.mark.parametrize("seed", [None, "x", 1.5])
def test_a_seed_that_is_none_is_named_with_its_file(seed, tmp_path):
    write_run(tmp_path / "odd", seed=seed)
    with pytest.raises(SettingError, match=r"odd/config\.json: seed must be a whole number"):
        results.grouped(results.gather([tmp_path]))


@pytest.mark.parametrize("order", [("done", "half"), ("half", "done")])
def test_a_repetition_is_left_out_and_noted(order, tmp_path):
    write_run(tmp_path / "done", score=3.0)
    write_run(tmp_path / "half", summary={})
    groups, notes = results.grouped(results.gather([tmp_path / name for name in order]))
    assert names(groups[0].results) == ["done"]
    assert groups[0].label == "toy"
    assert notes == [
        f"{tmp_path / 'half'} left out: settings and seed of {tmp_path / 'done'}",
    ]


@pytest.mark.parametrize(
    ("summary", "state"),
    [
        (None, "finished"),
        ({}, "unfinished"),
        ({"ended_by": "KeyboardInterrupt"}, "ended by KeyboardInterrupt"),
    ],
)
def test_state_is_how_the_run_ended(summary, state, tmp_path):
    result = results.read(write_run(tmp_path / "run", summary=summary))
    assert result.state == state
    assert math.isnan(result.number("nothing"))


def test_column_leaves_out_rows_without_value_and_weighs_by_episodes(tmp_path):
    result = results.read(write_run(tmp_path / "run", returns=(None, 5, None, 7, 8)))
    steps, values, weights = results.column(result, "episode_return")
    np.testing.assert_array_equal(steps, [100, 300, 400])
    np.testing.assert_array_equal(values, [5, 7, 8])
    np.testing.assert_array_equal(weights, [1, 1, 1])
    (result.directory / "metrics.csv").write_text("steps,episodes,episode_return\n10,3,1\n20,9,2\n")
    np.testing.assert_array_equal(results.column(result, "episode_return")[2], [3, 6])


def test_column_errors_name_what_is_wrong(tmp_path):
    result = results.read(write_run(tmp_path / "run", returns=(None,) * 5))
    with pytest.raises(SettingError, match=r"--metric.*'los'.*did you mean 'loss'"):
        results.column(result, "los")
    with pytest.raises(SettingError, match=r"no value of episode_return; leave it out"):
        results.column(result, "episode_return")
    (result.directory / "metrics.csv").write_text("steps,x\n1,abc\n")
    with pytest.raises(SettingError, match=r"metrics.csv cannot be read.*abc"):
        result.columns()
    (result.directory / "metrics.csv").unlink()
    with pytest.raises(SettingError, match=r"has no metrics.csv"):
        result.columns()
