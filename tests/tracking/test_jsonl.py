import errno
import json
import math
import os
import pathlib

import numpy as np
import pytest

from rlws.tracking import Csv, Jsonl, Run, Tracker, read_metrics


@pytest.fixture
def run(tmp_path):
    return Run("toy", tmp_path, {"seed": 3}, 100, "steps")


def write(run, rows):
    sink = Jsonl()
    sink.start(run)
    for row in rows:
        sink.log(row)
    return (run.directory / "metrics.jsonl").read_text()


def refuse(name):
    raise AssertionError(name)


def parsed(text):
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_jsonl_lines_are_the_rows(run):
    rows = [{"steps": 1, "seconds": 0.5}, {"steps": np.int64(2), "loss": np.float32(0.25)}]
    text = write(run, rows)
    assert text == '{"steps": 1, "seconds": 0.5}\n{"steps": 2, "loss": 0.25}\n'
    assert os.listdir(run.directory) == ["metrics.jsonl"]


def test_jsonl_is_valid_whatever_the_values(run):
    row = {"steps": 1, "a": math.nan, "b": -math.inf, "c": np.float32("inf"), 'd"\n': 1.0}
    (line,) = parsed(write(run, [row]))
    assert line == {"steps": 1, "a": None, "b": None, "c": None, 'd"\n': 1.0}


def test_jsonl_is_there_after_each_row(run):
    sink, path = Jsonl(), run.directory / "metrics.jsonl"
    sink.start(run)
    assert path.read_text() == ""
    for steps in (1, 2, 3):
        sink.log({"steps": steps})
        assert [row["steps"] for row in parsed(path.read_text())] == [*range(1, steps + 1)]


def test_jsonl_line_is_one_write(run, monkeypatch):
    sink, writes = Jsonl(), []
    sink.start(run)
    fifo = run.directory / "metrics.jsonl"
    fifo.unlink()
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        row = {"steps": 1} | {f"metric_{i}": float(i) for i in range(1500)}
        sink.log(row)  # longer than Python's own buffer, shorter than the pipe's
        writes.append(os.read(reader, 1 << 16))
    finally:
        os.close(reader)
    assert len(writes[0]) > 8192 * 2
    assert parsed(writes[0].decode()) == [row]


def test_jsonl_keeps_the_rows_that_csv_keeps(run):
    rows = [{"steps": steps, "loss": steps / 8} for steps in (10, 20, 30)]
    written = []
    for sink in (Csv(), Jsonl()):
        sink.start(run)
        for row in rows:
            sink.log(row)
        path = run.directory / f"metrics.{type(sink).__name__.lower()}"
        path.write_text(path.read_text() + path.read_text().splitlines()[-1][:5])  # killed
        sink.start(run._replace(resumed_steps=20))
        sink.log({"steps": 25, "loss": 1.0})
        written.append(path)
    columns = read_metrics(written[0])
    lines = parsed(written[1].read_text())
    assert [row["steps"] for row in lines] == columns["steps"] == [10, 20, 25]
    assert [row["loss"] for row in lines] == columns["loss"] == [1.25, 2.5, 1.0]


def test_jsonl_fresh_run_starts_a_new_file(run):
    write(run, [{"steps": 10}])
    assert write(run, [{"steps": 5}]) == '{"steps": 5}\n'


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("sink", [Jsonl(), Csv()])
@pytest.mark.parametrize("begun", [True, False])
def test_full_disk_ends_the_sink_and_never_in_silence(run, capsys, sink, begun, monkeypatch):
    tracker = Tracker([sink])
    name = f"metrics.{type(sink).__name__.lower()}"
    if begun:
        tracker.start(run)
        (run.directory / name).unlink()
        (run.directory / name).symlink_to("/dev/full")
    else:
        monkeypatch.setattr(pathlib.Path, "write_text", full)
        tracker.start(run)
    tracker.log({"steps": 1})
    tracker.log({"steps": 2})
    tracker.finish({})
    (failure,) = tracker.failures
    assert failure.startswith(f"{type(sink).__name__} switched off")
    assert capsys.readouterr().err.count("No space left on device") == 1
