"""Where a run's numbers go: terminal, metrics.csv, JSON, plots and videos."""

from rlws.tracking.files import Csv, Json, read_metrics
from rlws.tracking.plots import Plots, plot_run
from rlws.tracking.sink import Row, Run, Sink, Tracker
from rlws.tracking.terminal import Terminal
from rlws.tracking.video import write_video

__all__ = [
    "Csv",
    "Json",
    "Plots",
    "Row",
    "Run",
    "Sink",
    "Terminal",
    "Tracker",
    "plot_run",
    "read_metrics",
    "write_video",
]
