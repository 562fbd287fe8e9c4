import math

import numpy as np
import pytest

from rlws.tracking import Csv, Plots, Run, Tracker, plot_run, read_metrics
from rlws.tracking.columns import rolling_mean, series, smoothing_window, thinned
from rlws.tracking.figures import panels_figure, return_figure, run_figures

pytestmark = pytest.mark.usefixtures("drawn")

NAN = math.nan


def rows(count=40, start=1):
    for index in range(start, count + 1):
        row = {"steps": 25 * index, "episodes": 2 * index, "seconds": 30.0 * index}
        row |= {"episode_return": float(index), "episode_return_min": index - 1.0}
        row |= {"episode_return_max": index + 2.0, "loss": 1.0 / index, "entropy": 0.5}
        if index % 10 == 0:
            row |= {"evaluation_return_mean": index + 1.0, "evaluation_return_std": 0.5}
        yield row


def start(tmp_path, budget=1000, **options):
    """Returns the sinks of a run with plots, which are drawn from its metrics.csv."""
    tracker = Tracker([Csv(), Plots(**options)])
    tracker.start(Run("toy", tmp_path, {}, budget, "steps"))
    return tracker


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "plots").glob("*"))


def test_rolling_mean_by_hand():
    steps = np.array([10.0, 20.0, 30.0, 40.0, 100.0])
    values = np.array([1.0, 4.0, 1.0, 6.0, 8.0])
    weights = np.array([1.0, 2.0, 1.0, 1.0, 5.0])
    # Windows (s - 20, s]: {1}, {1, 4}, {4, 1}, {1, 6}, {8}; the 4 counts twice.
    expected = [1.0, 9 / 3, 9 / 3, 7 / 2, 8.0]
    np.testing.assert_allclose(rolling_mean(steps, values, weights, 20.0), expected)
    np.testing.assert_allclose(rolling_mean(steps, values, weights, 0.0), values)


def test_smoothing_window_is_five_percent_to_two_digits():
    assert smoothing_window(np.array([1.0, 500_000.0])) == 25_000
    assert smoothing_window(np.array([123_456.0])) == 6_200


def test_return_figure_draws_the_data():
    columns = {
        "steps": [100, 130, 150, 1000],
        "episodes": [4, 4, 6, 7],
        "episode_return": [1.0, NAN, 4.0, 9.0],
        "episode_return_min": [0.0, NAN, 3.0, 9.0],
        "episode_return_max": [2.0, NAN, 6.0, 9.0],
        "evaluation_return_mean": [NAN, NAN, 5.0, 8.0],
        "evaluation_return_std": [NAN, NAN, 1.0, 2.0],
    }
    figure = return_figure(columns, "toy")
    (axes,) = figure.axes
    raw, smooth, evaluation = axes.lines[:3]
    np.testing.assert_array_equal(raw.get_xdata(), [100, 150, 1000])
    np.testing.assert_array_equal(raw.get_ydata(), [1, 4, 9])
    # The window of 50 excludes step 100 at step 150.
    np.testing.assert_array_equal(smooth.get_ydata(), [1, 4, 9])
    np.testing.assert_array_equal(evaluation.get_xdata(), [150, 1000])
    np.testing.assert_array_equal(evaluation.get_ydata(), [5, 8])
    labels = axes.get_legend_handles_labels()[1]
    assert "mean of the last 50 steps" in labels
    assert "evaluation, mean ± std" in labels
    band, bars = axes.collections
    heights = {tuple(point) for point in band.get_paths()[0].vertices}
    assert {(150.0, 3.0), (150.0, 6.0), (100.0, 0.0), (100.0, 2.0)} <= heights
    np.testing.assert_array_equal(bars.get_segments()[1], [[1000, 6], [1000, 10]])
    assert axes.get_title(loc="left") == "toy"
    assert axes.xaxis.get_major_formatter()(50_000) == "50k"


def test_return_figure_weights_rows_by_their_episodes():
    columns = {"steps": [990, 1000], "episodes": [1, 4], "episode_return": [1.0, 5.0]}
    smooth = return_figure(columns).axes[0].lines[1]
    np.testing.assert_allclose(smooth.get_ydata(), [1.0, (1 + 3 * 5) / 4])


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        ({"steps": [1, 2]}, None),
        ({"steps": [1, 2], "episode_return": [NAN, NAN]}, None),
        ({"steps": [1, 2], "evaluation_return_mean": [NAN, 3.0]}, 1),
    ],
)
def test_return_figure_needs_returns(columns, lines):
    figure = return_figure(columns)
    assert figure is None if lines is None else figure.axes[0].lines[0].get_ydata() == [3.0]


def test_panels_figure_draws_what_has_values():
    columns = {"steps": [1, 2, 3], "loss": [NAN, -1.0, 2.0], "norm": [1.0, 10.0, 1000.0]}
    columns["empty"] = [NAN] * 3
    figure = panels_figure(columns, ["loss", "norm", "empty", "absent"])
    loss, norm = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [2, 3])
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [-1, 2])
    assert (loss.get_yscale(), norm.get_yscale()) == ("linear", "log")
    assert panels_figure(columns, ["empty"]) is None


def test_run_figures_hold_each_metric_once():
    names = ["loss", "value_loss", "gradient_norm", "kl", "episode_length", "steps_per_second"]
    hidden = ["evaluation_return_std", "episode_return_min", "episodes", "updates", "seconds"]
    figures = run_figures({name: [1.0, 2.0] for name in ["steps", *names, *hidden]})
    titles = {k: [x.get_title(loc="left") for x in v.axes] for k, v in figures.items()}
    assert titles == {
        "losses": ["loss", "value loss", "gradient norm"],
        "diagnostics": ["kl", "episode length", "steps per second"],
    }
    assert run_figures({}) == run_figures({"steps": [], "loss": []}) == {}


def test_series_are_the_rows_with_a_value():
    columns = {"steps": [1, 2, 3], "episodes": [2, 3, 7], "episode_return": [1.0, NAN, 4.0]}
    columns["low"] = [0.5, 0.6, NAN]
    steps, values, weights, low, absent = series(columns, "episode_return", "low", "absent")
    np.testing.assert_array_equal([steps, values, weights], [[1, 3], [1, 4], [2, 4]])
    np.testing.assert_array_equal([low, absent], [[0.5, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(series(columns, "low")[2], [1, 1])  # not about episodes


def test_plot_run_from_metrics_csv_leaves_no_empty_figure(tmp_path):
    csv = Csv()
    csv.start(Run("toy", tmp_path, {}, 1000, "steps"))
    metrics = tmp_path / "metrics.csv"
    assert plot_run(read_metrics(metrics), tmp_path) == []
    for row in rows():
        csv.log({name: row[name] for name in ("steps", "loss")})
    paths = plot_run(read_metrics(metrics), tmp_path)
    assert [path.name for path in paths] == names(tmp_path) == ["losses.png"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")


def test_plots_sink_writes_all_figures(tmp_path):
    plots = start(tmp_path)
    for row in rows(15):
        plots.log(row)
    plots.finish({})
    assert names(tmp_path) == ["diagnostics.png", "losses.png", "return.png"]


@pytest.mark.parametrize(
    ("budget", "period", "drawn"),
    [(1000, 60.0, [10, 20, 30]), (1000, 400.0, [14, 28]), (1000, 1e9, []), (0, 60.0, [])],
)
def test_plots_sink_draws_each_quarter_unless_too_soon(
    tmp_path, monkeypatch, budget, period, drawn
):
    plots, seen = start(tmp_path, budget, period=period), []
    monkeypatch.setattr(
        "rlws.tracking.plots.plot_run", lambda columns, *_: seen.append(len(columns["steps"]))
    )
    for row in rows():
        plots.log(row)
    assert seen == drawn
    plots.finish({})
    assert seen == [*drawn, 40]


def test_plots_sink_takes_over_a_resumed_run(tmp_path, monkeypatch):
    csv, run = Csv(), Run("toy", tmp_path, {}, 1000, "steps")
    csv.start(run)
    for row in rows(12):
        csv.log(row)
    drawn = {}
    monkeypatch.setattr("rlws.tracking.plots.plot_run", lambda columns, *_: drawn.update(columns))
    plots = Tracker([Csv(), Plots()])
    plots.start(run._replace(resumed_steps=250))
    plots.log({"steps": 260})
    plots.finish({})
    assert list(drawn["steps"]) == [*range(25, 251, 25), 260]


@pytest.mark.parametrize(("every", "expected"), [(1000, 1001 + 2), (10, 1001 + 200), (1, 1001)])
def test_thinned_stays_bounded_and_keeps_evaluations(every, expected):
    steps = np.arange(2001)
    evaluations = np.where(steps % every == 1 % every, 1.0, NAN)
    kept = thinned({"steps": steps, "evaluation_return_mean": evaluations}, 2000)
    assert len(kept["steps"]) == len(kept["evaluation_return_mean"]) == expected
    np.testing.assert_array_equal(thinned({"steps": steps[:2000]}, 2000)["steps"], steps[:2000])
    assert len(thinned({"steps": []}, 2000)["steps"]) == 0


def test_plots_sink_draws_at_most_2000_rows(tmp_path, monkeypatch):
    (tmp_path / "metrics.csv").write_text("steps\n" + "".join(f"{x}\n" for x in range(5000)))
    drawn = []
    monkeypatch.setattr("rlws.tracking.plots.plot_run", lambda *found: drawn.append(found[0]))
    plots = Plots()
    plots.start(Run("toy", tmp_path, {}, 1000, "steps"))
    plots.finish({})
    assert list(drawn[0]["steps"]) == [*range(0, 5000, 3)]
