"""A run in MLflow, by default in a database of its own."""

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from rlws.settings import importing
from rlws.tracking.files import replace, resumed_lines
from rlws.tracking.sink import Row, Run, Sink

PERIOD = 1.0  # seconds from one request to the next, at least
NAME_LENGTH, PARAMETER_LENGTH, TAG_LENGTH = 250, 6000, 5000  # what MLflow takes

DEFAULTS = {
    # A server that is down holds up the run for 14 seconds; with MLflow's own 7, for 250.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    # Whoever tracks a run has not asked to report it to MLflow's makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mlflow(Sink):
    """Sends rows as metrics, the configuration as parameters, the summary as tags.

    They go to MLFLOW_TRACKING_URI, by default `mlflow.db` in the run's folder, whose
    `mlflow_run.txt` lets a resumed run go on as the same MLflow run.
    """

    def __init__(self):
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        with importing("tracking with 'mlflow'", "mlflow"):
            # MLflow imports its database only when it needs it: by then it is too late.
            import alembic  # noqa: F401
            import mlflow
            import mlflow.entities
            import sqlalchemy  # noqa: F401
        self._mlflow, self._entities = mlflow, mlflow.entities
        self.outside_errors = (OSError, mlflow.MlflowException)

    def start(self, run: Run) -> None:
        """Starts or continues the MLflow run."""
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        default = f"sqlite:///{run.directory.resolve() / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or default
        self._client = self._mlflow.MlflowClient(uri)
        path = run.directory / "mlflow_run.txt"
        known = resumed_lines(path, run)
        self._identity = known[0].strip() if known else self._new_run(run)
        replace(path, self._identity + "\n")
        self._client.update_run(self._identity, status="RUNNING")
        # MLflow cannot forget: the rows of the lost part stay, and are not sent again.
        self._done = self._client.get_run(self._identity).data.metrics.get("steps", -1)

    def log(self, row: Row) -> None:
        """Sends `row` and those waiting, or lets it wait if the last request is too recent."""
        if row["steps"] <= self._done:
            return
        now = int(1000 * time.time())
        self._waiting += [
            self._entities.Metric(_name(name), float(value), now, int(row["steps"]))
            for name, value in row.items()
        ]
        if time.monotonic() - self._sent >= PERIOD:
            self._send()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Sends what waits and the summary."""
        self._send()
        tags = [
            self._entities.RunTag(_name(f"summary.{name}"), str(value)[:TAG_LENGTH])
            for name, value in summary.items()
        ]
        self._client.log_batch(self._identity, tags=tags)
        status = "FAILED" if "ended_by" in summary else "FINISHED"
        self._client.set_terminated(self._identity, status)

    def _new_run(self, run: Run) -> str:
        found = self._client.get_experiment_by_name(run.name)
        experiment = found.experiment_id if found else self._client.create_experiment(run.name)
        identity = self._client.create_run(experiment, run_name=run.label).info.run_id
        parameters = [self._entities.Param(*setting) for setting in flattened(run.config).items()]
        self._client.log_batch(identity, params=parameters)  # in requests of a size it takes
        return identity

    def _send(self) -> None:
        self._client.log_batch(self._identity, metrics=self._waiting)
        self._waiting, self._sent = [], time.monotonic()


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Returns nested settings as texts by dotted name, cut to the lengths MLflow takes."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[_name(f"{prefix}{name}")] = str(value)[:PARAMETER_LENGTH]
    return flat


def _name(text: str) -> str:
    return re.sub(r"[^\w.\-/ :]", "_", text)[:NAME_LENGTH]
