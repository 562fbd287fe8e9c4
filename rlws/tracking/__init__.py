"""Where a run's numbers go: terminal, files, plots, videos, and services that keep them."""

from collections.abc import Callable

from rlws.settings import choose
from rlws.tracking.files import Csv, Json, Jsonl, read_metrics
from rlws.tracking.mlflow import Mlflow
from rlws.tracking.plots import Plots, plot_run
from rlws.tracking.sink import OnFailure, Row, Run, Sink, Tracker
from rlws.tracking.tensorboard import TensorBoard
from rlws.tracking.terminal import Terminal
from rlws.tracking.video import write_video
from rlws.tracking.wandb import Wandb

__all__ = [
    "SINKS",
    "Csv",
    "Json",
    "Jsonl",
    "Mlflow",
    "OnFailure",
    "Plots",
    "Row",
    "Run",
    "Sink",
    "TensorBoard",
    "Terminal",
    "Tracker",
    "Wandb",
    "make_sinks",
    "plot_run",
    "read_metrics",
    "write_video",
]

# By name, as of the class in small letters; add your own. Packages are imported when one is made.
SINKS: dict[str, Callable[[], Sink]] = {
    sink.__name__.lower(): sink for sink in (Jsonl, TensorBoard, Wandb, Mlflow)
}


def make_sinks(names: tuple[str, ...], on_failure: OnFailure = "drop") -> tuple[Sink, ...]:
    """Returns the sinks of these names.

    Args:
      names: of `SINKS`.
      on_failure: whether a full disk or a silent service ends the sink, or the run as well.

    Raises:
      SettingError: there is no such sink, or its package is not installed; nothing was written.
    """
    choose("on_failure", on_failure, ("drop", "stop"))
    for name in names:
        choose("tracking sink", name, SINKS)
    sinks = tuple(SINKS[name]() for name in dict.fromkeys(names))
    for sink in sinks:
        sink.on_failure = on_failure
    return sinks
