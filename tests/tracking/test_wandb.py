import errno
import json
import os
import pathlib
import struct
import time

import pytest

from rlws.tracking import Run, Tracker, Wandb
from rlws.tracking.wandb import new_identity

wandb = pytest.importorskip("wandb")
pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in ("WANDB_PROJECT", "WANDB_DIR", "WANDB_RUN_ID", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    directory = tmp_path / "2026-01-02 seed0"
    directory.mkdir()
    config = {"seed": 3, "agent": {"type": "zoo:DQN", "rate": 0.5}, "sweep": []}
    return Run("toy", directory, config, 100, "steps")


def drive(run, rows, summary=None):
    """Returns the records of W&B's log."""
    sink = Wandb()
    sink.start(run)
    path = pathlib.Path(sink._run.settings.sync_file)
    for row in rows:
        sink.log(row)
    sink.finish(summary or {})
    return written(path)


def written(path):
    for _ in range(300):  # W&B's process writes on after `finish`
        found = [(record.WhichOneof("record_type"), record) for record in records(path)]
        if any(kind == "exit" for kind, _ in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} has no end")


def records(path):
    """Parses W&B's log: blocks of 32 KiB, as in LevelDB, after 7 bytes that name the format."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield pb.Record.FromString(record)
            record = b""


def pick(found, kind):
    return [getattr(record, kind) for name, record in found if name == kind]


def values(items):
    return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}


def rows_of(found):
    rows = [values(record.item) for record in pick(found, "history")]
    return [{name: v for name, v in row.items() if name not in OWN} for row in rows]


OWN = {"_timestamp", "_runtime"}


def test_wandb_offline_holds_the_run(run):
    rows = [{"steps": 10, "loss": 0.25}, {"steps": 20, "loss": 0.5, "episodes": 3}]
    found = drive(run, rows, {"best": 7.5, "ended_by": "OSError"})
    assert rows_of(found) == [row | {"_step": row["steps"]} for row in rows]
    (record,) = pick(found, "run")
    assert (record.project, record.display_name) == ("toy", "2026-01-02 seed0")
    assert record.run_id == (run.directory / "wandb" / "id").read_text().strip()
    config = values(record.config.update)
    del config["_wandb"]
    assert config == run.config
    summary = {}
    for update in pick(found, "summary"):
        summary |= values(update.update)
    assert (summary["best"], summary["ended_by"]) == (7.5, "OSError")
    assert pick(found, "exit")[0].exit_code == 1
    assert os.listdir(run.directory) == ["wandb"]


def test_wandb_offline_holds_long_runs(run):
    rows = [{"steps": steps} | {f"metric_{i}": 1.5 for i in range(50)} for steps in range(100)]
    found = drive(run, rows)
    assert rows_of(found) == [row | {"_step": row["steps"]} for row in rows]
    assert pick(found, "exit")[0].exit_code == 0


def test_wandb_keeps_nan(run):
    (row,) = rows_of(drive(run, [{"steps": 1, "loss": float("nan")}]))
    assert row["loss"] != row["loss"]


def test_wandb_resumed_run_keeps_its_identity(run):
    first = drive(run, [{"steps": 10}, {"steps": 20}])
    time.sleep(1)  # W&B names its folders by the second
    second = drive(run._replace(resumed_steps=10, config={"seed": 4}), [{"steps": 15}])
    time.sleep(1)
    third = drive(run, [])
    one, two, three = (pick(found, "run")[0].run_id for found in (first, second, third))
    assert one == two != three
    assert rows_of(second) == [{"steps": 15, "_step": 15}]


def test_wandb_project_can_be_set(run, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "other")
    assert pick(drive(run, []), "run")[0].project == "other"


def test_wandb_runs_side_by_side(run, tmp_path):
    sinks = [Wandb(), Wandb()]
    for sink, name in zip(sinks, "ab", strict=True):
        (tmp_path / name).mkdir()
        sink.start(run._replace(directory=tmp_path / name))
    for steps in (1, 2):
        for i, sink in enumerate(sinks):
            sink.log({"steps": steps, "index": i})
    for i, sink in enumerate(sinks):
        path = pathlib.Path(sink._run.settings.sync_file)
        sink.finish({})
        rows = [(row["steps"], row["index"]) for row in rows_of(written(path))]
        assert rows == [(1, i), (2, i)]


def test_identity_is_what_services_take_and_unlike_others(run):
    first, second = new_identity(run), new_identity(run)
    assert first != second
    assert first.startswith("2026-01-02-seed0-")
    assert len(new_identity(run._replace(directory=run.directory / ("é/" * 9 + "x" * 200)))) < 64


def test_wandb_out_of_reach_is_a_failure_of_the_outside(run, monkeypatch, capsys):
    def unreachable(**_):
        raise wandb.errors.CommError("timed out\nwhile retrying")

    monkeypatch.setattr(wandb, "init", unreachable)
    tracker = Tracker([Wandb()])
    tracker.start(run)
    tracker.log({"steps": 1})
    assert "Wandb switched off" in capsys.readouterr().err
    assert tracker.failures[0].endswith("timed out while retrying")


def test_wandb_hears_of_a_full_disk_at_the_end(run, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tracker = Tracker([Wandb()])
    tracker.start(run)
    monkeypatch.setattr(pathlib.Path, "write_text", full)
    tracker.finish({})
    assert "No space left on device" in tracker.failures[0]
