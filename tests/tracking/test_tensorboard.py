import json
import math
import os

import numpy as np
import pytest

from rlws.tracking import Run, TensorBoard, Tracker

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def run(tmp_path):
    return Run("toy", tmp_path, {"seed": 3, "agent": {"rate": 0.5}}, 100, "steps")


def drive(run, rows, notes=()):
    sink = TensorBoard()
    sink.start(run)
    for row in rows:
        sink.log(row)
    for note in notes:
        sink.note(note)
    sink.finish({})


def read(run):
    """What TensorBoard itself reads."""
    everything = {"scalars": 0, "tensors": 0}
    events = accumulator.EventAccumulator(str(run.directory / "tensorboard"), everything)
    return events.Reload()


def scalars(run, tag):
    return {event.step: event.value for event in read(run).Scalars(tag)}


def texts(run, tag):
    events = read(run)
    assert events.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    return [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)]


def test_tensorboard_reads_the_rows(run):
    rows = [{"steps": 10, "loss": 0.25}, {"steps": 20, "loss": np.float32(0.5), "episodes": 3}]
    drive(run, rows)
    assert set(read(run).Tags()["scalars"]) == {"loss", "episodes"}
    assert scalars(run, "loss") == {10: 0.25, 20: 0.5}
    assert scalars(run, "episodes") == {20: 3.0}
    assert os.listdir(run.directory) == ["tensorboard"]


def test_tensorboard_reads_nan_and_infinity(run):
    drive(run, [{"steps": 1, "loss": math.nan}, {"steps": 2, "loss": math.inf}])
    values = scalars(run, "loss")
    assert math.isnan(values[1])
    assert values[2] == math.inf


def test_tensorboard_reads_notes_and_configuration(run):
    drive(run, [{"steps": 7}], ["évaluation: 43.1", "video written"])
    assert texts(run, "notes") == [(7, "évaluation: 43.1"), (7, "video written")]
    ((step, text),) = texts(run, "config")
    assert step == 0
    assert all(line.startswith("    ") for line in text.splitlines())  # code, in Markdown
    assert json.loads(text) == run.config


def test_tensorboard_reads_each_row_at_once(run):
    sink = TensorBoard()
    sink.start(run)
    for steps in (1, 2, 3):
        sink.log({"steps": steps, "loss": 1.0})
        assert list(scalars(run, "loss")) == [*range(1, steps + 1)]


def test_tensorboard_resumed_run_hides_what_the_lost_part_wrote(run):
    drive(run, [{"steps": steps, "loss": 1.0} for steps in (10, 20, 21, 40)])
    drive(run._replace(resumed_steps=20), [{"steps": 25, "loss": 2.0}], ["onwards"])
    assert scalars(run, "loss") == {10: 1.0, 20: 1.0, 25: 2.0}
    assert texts(run, "notes") == [(25, "onwards")]
    assert len(os.listdir(run.directory / "tensorboard")) == 2


def test_tensorboard_resumes_after_a_kill_at_any_byte(run):
    drive(run, [{"steps": 10, "loss": 1.0}])
    (path,) = (run.directory / "tensorboard").iterdir()
    whole = path.read_bytes()
    drive(run._replace(resumed_steps=10), [{"steps": 15, "loss": 2.0}])
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert scalars(run, "loss") == {15: 2.0}
    path.write_bytes(whole)
    assert scalars(run, "loss") == {10: 1.0, 15: 2.0}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_tensorboard_hears_of_a_full_disk(run, capsys):
    tracker = Tracker([TensorBoard()])
    tracker.start(run)
    (path,) = (run.directory / "tensorboard").iterdir()
    path.unlink()
    path.symlink_to("/dev/full")
    tracker.log({"steps": 1, "loss": 1.0})
    assert "No space left on device" in capsys.readouterr().err
    assert len(tracker.failures) == 1
