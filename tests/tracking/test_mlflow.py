import math
import os
import sqlite3

import numpy as np
import pytest

from rlws.tracking import Mlflow, Run, Tracker
from rlws.tracking.mlflow import flattened

pytestmark = [
    # MLflow, of its own tables and validators.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "seed 0"
    directory.mkdir()
    config = {"seed": 3, "agent": {"type": "zoo:DQN", "rate": 0.5}, "sweep": ["a", "b"]}
    return Run("toy", directory, config, 100, "steps")


def drive(run, rows, summary=None):
    sink = Mlflow()
    sink.start(run)
    for row in rows:
        sink.log(row)
    sink.finish(summary or {})
    return client(run), (run.directory / "mlflow_run.txt").read_text().strip()


def client(run):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{run.directory / 'mlflow.db'}")


def history(run, identity, name):
    return [(m.step, m.value) for m in client(run).get_metric_history(identity, name)]


def test_mlflow_holds_the_run(run, tmp_path):
    rows = [{"steps": 10, "loss": 0.25}, {"steps": 20, "loss": np.float32(0.5), "episodes": 3}]
    reader, identity = drive(run, rows, {"best": 7.5})
    assert history(run, identity, "loss") == [(10, 0.25), (20, 0.5)]
    assert history(run, identity, "episodes") == [(20, 3.0)]
    assert history(run, identity, "steps") == [(10, 10.0), (20, 20.0)]
    found = reader.get_run(identity)
    assert found.info.run_name == "seed 0"
    assert found.info.status == "FINISHED"
    assert reader.get_experiment(found.info.experiment_id).name == "toy"
    assert found.data.tags["summary.best"] == "7.5"
    expected = {"seed": "3", "agent.type": "zoo:DQN", "agent.rate": "0.5", "sweep": "['a', 'b']"}
    assert found.data.params == expected
    assert set(os.listdir(run.directory)) == {"mlflow.db", "mlflow_run.txt"}
    assert os.listdir(tmp_path) == ["seed 0"]


def test_mlflow_sends_rows_in_batches(run, monkeypatch):
    sizes, clock = [], iter(range(10_000))
    sink = Mlflow()
    sink.start(run)
    monkeypatch.setattr("time.monotonic", lambda: next(clock) / 10)
    sink._sent = -0.1
    store = sink._client._tracking_client.store
    log = store.log_batch

    def counted(metrics, **others):
        sizes.append(len(metrics))
        log(metrics=metrics, **others)

    monkeypatch.setattr(store, "log_batch", counted)
    for steps in range(25):
        sink.log({"steps": steps, "loss": 1.0})
    sink.log({"steps": 25} | {f"metric_{i}": 1.0 for i in range(2100)})
    sink.finish({})
    assert sizes[0] == 2 * 10  # of the ten rows of a second
    assert max(sizes) == 1000
    identity = (run.directory / "mlflow_run.txt").read_text().strip()
    assert history(run, identity, "loss") == [(steps, 1.0) for steps in range(25)]
    assert history(run, identity, "metric_2099") == [(25, 1.0)]


def test_mlflow_keeps_nan_and_infinity(run):
    _, identity = drive(run, [{"steps": 1, "x": math.nan}, {"steps": 2, "x": math.inf}])
    (_, first), (_, second) = history(run, identity, "x")
    assert math.isnan(first)
    assert second > 1e308


def test_mlflow_run_that_was_ended_has_failed(run):
    reader, identity = drive(run, [{"steps": 1}], {"ended_by": "KeyboardInterrupt"})
    found = reader.get_run(identity)
    assert found.info.status == "FAILED"
    assert found.data.tags["summary.ended_by"] == "KeyboardInterrupt"


def test_mlflow_resumed_run_goes_on_and_has_each_row_once(run):
    _, first = drive(run, [{"steps": 10}, {"steps": 20}, {"steps": 30}], {"ended_by": "kill"})
    rows = [{"steps": 30}, {"steps": 40}]
    reader, second = drive(run._replace(resumed_steps=20, config={"seed": 4}), rows)
    assert first == second
    assert [step for step, _ in history(run, first, "steps")] == [10, 20, 30, 40]
    assert reader.get_run(first).info.status == "FINISHED"


def test_mlflow_tracking_uri_can_be_set(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    sink = Mlflow()
    sink.start(run)
    sink.log({"steps": 1})
    sink.finish({})
    assert os.listdir(run.directory) == ["mlflow_run.txt"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "shared.db").rename(tmp_path / "mlflow.db")
    assert history(run._replace(directory=tmp_path), sink._identity, "steps") == [(1, 1.0)]


def test_mlflow_takes_settings_and_names_of_any_length(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")  # it would cut some itself
    config = {f"setting_{i}": i for i in range(250)} | {"long": "x" * 9000, "n" * 400: 1, "a,b": 2}
    sinks = run._replace(config=config)
    reader, identity = drive(sinks, [{"steps": 1, "a,b": 1.0}], {"warnings": ["y" * 9000]})
    found = reader.get_run(identity).data
    assert len(found.params) == 253
    assert found.params["long"] == "x" * 6000
    assert found.params["a_b"] == "2"
    assert found.params["n" * 250] == "1"
    assert found.metrics["a_b"] == 1.0
    assert len(found.tags["summary.warnings"]) == 5000


def test_flattened_names_are_dotted():
    config = {"a": {"b": {"c": 1}, "d": None}, "e": [1, {"f": 2}]}
    assert flattened(config) == {"a.b.c": "1", "a.d": "None", "e": "[1, {'f': 2}]"}


def test_mlflow_broken_database_is_a_failure_of_the_outside(run, capsys):
    tracker = Tracker([Mlflow()])
    tracker.start(run)
    with sqlite3.connect(run.directory / "mlflow.db") as database:
        database.execute("DROP TABLE metrics")
    database.close()
    tracker.log({"steps": 1})
    tracker.finish({})
    assert len(tracker.failures) == 1
    assert "Mlflow switched off" in capsys.readouterr().err
