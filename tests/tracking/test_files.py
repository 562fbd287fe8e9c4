import json
import math
import os
import pathlib

import numpy as np
import pytest

from rlws.tracking import Csv, Json, Run, files, read_metrics

HEADER = "steps,episodes,updates,seconds,steps_per_second"


@pytest.fixture
def run(tmp_path):
    return Run("toy", tmp_path, {"seed": 3}, 100, "steps")


def counters(steps):
    return {"steps": steps, "episodes": 1, "updates": 2, "seconds": 0.5, "steps_per_second": 8.0}


def csv_text(run, rows):
    sink = Csv()
    sink.start(run)
    for row in rows:
        sink.log(row)
    return (run.directory / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], f"{HEADER}\n"),
        ([counters(1)], f"{HEADER}\n1,1,2,0.5,8.0\n"),
        (
            [counters(1), counters(2) | {"loss": 0.25}],
            f"{HEADER},loss\n1,1,2,0.5,8.0,\n2,1,2,0.5,8.0,0.25\n",
        ),
        (
            [{"b": 1.5} | counters(1), counters(2), {"a": 2.5} | counters(3)],
            f"{HEADER},b,a\n1,1,2,0.5,8.0,1.5,\n2,1,2,0.5,8.0,,\n3,1,2,0.5,8.0,,2.5\n",
        ),
        ([{"steps": 1}], f"{HEADER}\n1,,,,\n"),
        ([{"steps": 1, "loss": math.nan}], f"{HEADER},loss\n1,,,,,nan\n"),
        ([{"steps": np.int64(7), "x": np.float32(0.1)}], f"{HEADER},x\n7,,,,,0.1\n"),
        ([{"steps": 1, "a,b": 2}, {"steps": 2}], f'{HEADER},"a,b"\n1,,,,,2\n2,,,,,\n'),
    ],
)
def test_csv_lines(run, rows, expected):
    assert csv_text(run, rows) == expected
    assert os.listdir(run.directory) == ["metrics.csv"]


def test_csv_appends_without_rewriting(run, monkeypatch):
    sink = Csv()
    sink.start(run)
    sink.log(counters(1) | {"loss": 1.0})
    path = run.directory / "metrics.csv"
    before, inode = path.read_text(), path.stat().st_ino
    monkeypatch.setattr(files, "replacing", None)  # any rewrite now fails
    sink.log(counters(2) | {"loss": 2.0})
    sink.log(counters(3))
    assert path.stat().st_ino == inode
    assert path.read_text() == before + "2,1,2,0.5,8.0,2.0\n3,1,2,0.5,8.0,\n"


def test_csv_keeps_the_old_file_when_a_rewrite_fails(run, monkeypatch):
    sink = Csv()
    sink.start(run)
    sink.log(counters(1))
    path = run.directory / "metrics.csv"
    before = path.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        sink.log(counters(2) | {"loss": 1.0})
    assert path.read_text() == before
    assert os.listdir(run.directory) == ["metrics.csv"]


def test_what_is_replaced_is_on_the_disk_before(run, monkeypatch):
    seen, fsync, replace = [], os.fsync, os.replace
    size = lambda path: os.stat(path).st_size > 0
    monkeypatch.setattr(os, "fsync", lambda x: (seen.append(("fsync", size(x))), fsync(x)))
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append((b.name, size(a))), replace(a, b)))
    Json().start(run)
    csv_text(run, [])
    assert seen == [("fsync", True), ("config.json", True), ("fsync", True), ("metrics.csv", True)]


def test_csv_parses_after_a_kill_at_any_byte(run):
    text = csv_text(run, [counters(1), counters(20), counters(300)])
    path = run.directory / "metrics.csv"
    for size in range(len(HEADER) + 1, len(text) + 1):
        path.write_text(text[:size])
        complete = text[:size].count("\n") - 1
        assert read_metrics(path)["steps"] == [1.0, 20.0, 300.0][:complete]


def test_csv_resumed_run_drops_rows_after_the_checkpoint(run):
    text = csv_text(run, [counters(10) | {"loss": 1.0}, counters(20), counters(30)])
    (run.directory / "metrics.csv").write_text(text + "40,1")  # killed while writing
    resumed = csv_text(run._replace(resumed_steps=20), [counters(25) | {"kl": 3.0}])
    assert resumed.splitlines() == [
        f"{HEADER},loss,kl",
        "10,1,2,0.5,8.0,1.0,",
        "20,1,2,0.5,8.0,,",
        "25,1,2,0.5,8.0,,3.0",
    ]


@pytest.mark.parametrize(
    ("rows", "resumed", "last"),
    [
        ([10, 20, 30], 20, None),
        ([10, 20, 30], None, None),
        ([0], 0, None),
        ([], 0, None),  # a checkpoint from before the first row
        ([10, 30], 20, "10"),
        ([10], 2000, "10"),
        ([], 20, "0"),
        (None, 20, "0"),
    ],
)
def test_csv_of_a_resumed_run_that_lacks_rows_says_so(run, capsys, rows, resumed, last):
    if rows is not None:
        csv_text(run, [counters(steps) for steps in rows])
    csv_text(run._replace(resumed_steps=resumed), [])
    said = capsys.readouterr().err
    assert bool(said) is (last is not None)
    if said:
        assert said.startswith(f"warning: {run.directory / 'metrics.csv'} must have a row at ")
        assert f" at {resumed:,} steps" in said
        assert said.endswith(f"got none after {last}: it is incomplete\n")


def test_csv_fresh_run_starts_a_new_file(run):
    csv_text(run, [counters(10) | {"loss": 1.0}])
    assert csv_text(run, [counters(5)]) == f"{HEADER}\n5,1,2,0.5,8.0\n"


def test_read_metrics_takes_what_a_spreadsheet_saved_and_names_a_short_line(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes("\ufeffsteps,loss\n1,0.5\n".encode())
    assert read_metrics(path) == {"steps": [1.0], "loss": [0.5]}
    path.write_text("steps,loss\n1,0.5\n2\n")
    with pytest.raises(ValueError, match="line 3 must have 2 values, got 1"):
        read_metrics(path)


def test_read_metrics_columns(run):
    csv_text(run, [counters(1), counters(2) | {"loss": 0.25}])
    columns = read_metrics(run.directory / "metrics.csv")
    assert list(columns) == [*HEADER.split(","), "loss"]
    assert columns["steps"] == [1.0, 2.0]
    assert math.isnan(columns["loss"][0])
    assert columns["loss"][1] == 0.25


def test_json_is_valid_whatever_the_values(run):
    config = {"z": math.nan, "a": (1, np.float32(0.5)), "path": pathlib.Path("runs"), "on": True}
    sink = Json()
    sink.start(run._replace(config=config))
    sink.finish(
        {
            "best": np.float64("nan"),
            "worst": -math.inf,
            "steps": np.int64(7),
            "nested": {"returns": np.array([1.0, np.inf])},
        }
    )

    def refuse(name):
        raise AssertionError(name)

    def load(name):
        return json.loads((run.directory / name).read_text(), parse_constant=refuse)

    loaded = load("config.json")
    assert loaded == {"z": None, "a": [1, 0.5], "path": "runs", "on": True}
    assert list(loaded) == ["z", "a", "path", "on"]
    nested = {"returns": [1.0, None]}
    assert load("summary.json") == {"best": None, "worst": None, "steps": 7, "nested": nested}
    assert sorted(os.listdir(run.directory)) == ["config.json", "summary.json"]
