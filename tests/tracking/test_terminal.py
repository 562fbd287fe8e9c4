import io
import math
import pathlib

import pytest
from rich.console import Console

from rlws.tracking import Run, Terminal, Tracker
from rlws.tracking.progress import Progress, duration, entry, number, short
from rlws.tracking.terminal import live_line

SUMMARY = {"steps": 50_000, "episode_return": 9.5, "seconds": 3700.0, "sinks_failed": ["a", "b"]}


def rows(count, budget, unit="steps"):
    for index in range(1, count + 1):
        yield {
            "steps": 100 * index,
            "episodes": index,
            "seconds": float(index),
            "steps_per_second": 1234.5,
            "episode_return": math.nan if index % 3 else 42.5,
            unit: budget * index // count,
        }


def follow(console, budget=50_000, unit="steps", count=500, **options):
    terminal = Terminal(console=console, **options)
    terminal.start(Run("toy [run]", pathlib.Path("runs") / "toy", {}, budget, unit))
    for row in rows(count, budget, unit):
        terminal.log(row)
        if row["steps"] == 20_000:
            terminal.note("evaluation [10 episodes]: 43.1")
    terminal.finish(SUMMARY)
    return console.file.getvalue()


def plain(**options):
    return follow(Console(file=io.StringIO(), force_terminal=False), **options)


def live(width=140, **options):
    console = Console(
        file=io.StringIO(), force_terminal=True, force_interactive=True, width=width, height=30
    )
    return follow(console, **options)


def test_terminal_plain_lines():
    text = plain()
    lines = text.splitlines()
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    assert len(lines) == 1 + 20 + 1 + 6
    assert lines[0] == "toy [run]: 50,000 steps, results in runs/toy"
    progress = [line for line in lines if "steps/s" in line]
    assert len({len(line) for line in progress}) == 1
    assert progress[0] == (
        "  5%    2,500/50,000 steps        25 episodes   return   42.5"
        "    1,234 steps/s    7:55 left"
    )
    assert progress[-1].startswith("100%   50,000/50,000 steps")
    assert "evaluation [10 episodes]: 43.1" in lines
    assert lines[-6:] == [
        "steps           50,000",
        "episode_return  9.5",
        "seconds         1:01:40",
        "sinks_failed    a",
        "                b",
        "results         runs/toy",
    ]


def test_terminal_plain_line_is_flushed_at_once():
    class File(io.StringIO):
        flushed = ""

        def flush(self):
            self.flushed = self.getvalue()

    file = File()
    terminal = Terminal(console=Console(file=file, force_terminal=False))
    terminal.start(Run("toy", pathlib.Path("runs"), {}, 100, "steps"))
    terminal.log({"steps": 50})
    assert " 50%" in file.flushed


def test_terminal_live_line_shows_every_field():
    text = live(count=21, budget=2_100)
    for part in ("toy [run]", "━", "100%", "2,100/2,100 steps", "21 episodes", "1,234 steps/s"):
        assert part in text
    assert "return   42.5" in text
    assert "0:00 left" in text
    assert "\x1b[?25l" in text  # cursor hidden
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # and shown again
    assert text.rindex("╭") > text.rindex("steps/s")
    assert "runs/toy" in text[text.rindex("╭") :]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 140])
def test_terminal_live_line_fits_the_width(width):
    console = Console(file=io.StringIO(), force_terminal=False, width=width)
    progress = Progress(Run("a_long_experiment_name", pathlib.Path(), {}, 5_000_000, "steps"))
    progress.update({"steps": 1_234_567, "episodes": 1_234})
    console.print(live_line(progress, width))
    (line,) = console.file.getvalue().splitlines()
    assert len(line.rstrip()) <= width - (2 if width >= 40 else 0)
    assert "24%" in line
    assert ("a_long_experiment_name" in line) == (width >= 140)


@pytest.mark.parametrize("show", [plain, live])
def test_terminal_budget_zero(show):
    text = show(budget=0, count=2)
    assert "100%" in text
    assert "0/0 steps" in text
    assert "runs/toy" in text


def test_terminal_budget_in_episodes():
    assert " 50%         500 steps    5/10 episodes" in plain(count=10, budget=10, unit="episodes")


@pytest.mark.parametrize("show", [plain, live])
def test_terminal_quiet_prints_only_the_summary(show):
    text = show(quiet=True)
    assert "evaluation" not in text
    assert "steps/s" not in text
    assert "1:01:40" in text


def test_terminal_closed_pipe_does_not_stop_the_run(capsys):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    tracker = Tracker([Terminal(console=Console(file=Closed(), force_terminal=False))])
    tracker.start(Run("toy", pathlib.Path("runs"), {}, 100, "steps"))
    tracker.log({"steps": 100})
    tracker.finish({})
    assert "Terminal switched off" in capsys.readouterr().err


def test_progress_time_left_leaves_out_the_first_row():
    now = [0.0]
    progress = Progress(Run("toy", pathlib.Path(), {}, 100, "steps"), lambda: now[0])
    assert progress.fields()["left"] == "--:-- left"
    progress.update({"steps": 10, "seconds": 60.0})  # compiled for a minute
    assert progress.fields()["left"] == "--:-- left"
    progress.update({"steps": 20, "seconds": 61.0, "episode_return": 3.0})
    assert progress.fields()["left"] == " 0:08 left"
    now[0] = 3.0
    assert progress.fields()["left"] == " 0:05 left"
    now[0] = 30.0
    assert progress.fields()["left"] == " 0:00 left"
    progress.update({"steps": 29, "seconds": 62.0, "episode_return": math.nan})
    assert progress.fields()["return"] == "return      3"
    assert progress.fields()["percent"] == " 29%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.5, "9.5"),
        (-500.0, "-500"),
        (0.93, "0.93"),
        (499.98, "500"),
        (12345.6, "12,346"),
        (0.0, "0"),
        (-0.125, "-0.125"),
        (math.nan, "-"),
        (math.inf, "inf"),
        (1234567, "1,234,567"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (-3, "0:00"), (59.6, "1:00"), (90061, "25:01:01")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("seconds", 61, "1:01"),
        ("seconds", math.nan, "-"),
        ("solved", True, "True"),
        ("status", "done", "done"),
        ("best", None, "None"),
    ],
)
def test_entry(name, value, text):
    assert entry(name, value) == text


def test_short_is_relative_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "runs" / "a") == "runs/a"
    assert short(tmp_path.parent / "b") == str(tmp_path.parent / "b")


def test_workers_keep_the_rate_they_were_last_known_to_have():
    progress = Progress(Run("toy", pathlib.Path(), {}, 100, "steps"))
    lag = {"steps": 1, "parameter_lag": 1.5}
    progress.update({**lag, "worker_0_steps_per_second": 200.0, "worker_10_steps_per_second": 100})
    assert progress.fields()["workers"].startswith("2 workers at 150/s, lag 1.5")
    progress.update({**lag, "worker_10_steps_per_second": 300.0})
    assert progress.fields()["workers"].startswith("2 workers at 250/s")


def test_a_notebook_has_one_line_that_is_written_over(tmp_path):
    file = io.StringIO()
    console = Console(file=file, force_jupyter=True)
    terminal = Terminal(console=console)
    terminal.start(Run("n", tmp_path, {}, 100, "steps"))
    for steps in (0, 1, 2):
        terminal.log({"steps": steps, "episodes": 0})
    terminal.note("evaluation: 1")
    terminal.log({"steps": 3, "episodes": 0})
    terminal.finish({})
    shown = [line.rpartition("\r")[2].rstrip() for line in file.getvalue().split("\n")]
    assert shown[0].startswith("n: 100 steps")
    assert shown[1] == "evaluation: 1"
    assert "3/100 steps" in file.getvalue()  # below the note
    assert shown[2].startswith("results")  # which the summary takes the place of
