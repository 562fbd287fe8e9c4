import pathlib
import subprocess
import sys

import pytest

from rlws.settings import SettingError
from rlws.tracking import SINKS, Jsonl, Run, Sink, Tracker, make_sinks

RUN = Run("toy", pathlib.Path("runs/toy"), {}, 100, "steps")
FULL = OSError(28, "No space left on device", "runs/toy/metrics.csv")


class Recorder(Sink):
    def __init__(self, name="", calls=None):
        self.name, self.calls = name, [] if calls is None else calls

    def start(self, run):
        self.calls.append((self.name, "start", run))

    def log(self, row):
        self.calls.append((self.name, "log", row))

    def note(self, text):
        self.calls.append((self.name, "note", text))

    def finish(self, summary):
        self.calls.append((self.name, "finish", summary))


class Broken(Sink):
    def __init__(self, method, error=FULL):
        self.tried = []
        for name in ("start", "log", "note", "finish"):
            setattr(self, name, lambda _, name=name: self._call(name, name == method, error))

    def _call(self, name, fails, error):
        self.tried.append(name)
        if fails:
            raise error


def drive(tracker):
    tracker.start(RUN)
    tracker.log({"steps": 1})
    tracker.log({"steps": 2})
    tracker.note("hello")
    tracker.finish({"steps": 2})


def test_tracker_calls_sinks_in_order_and_finishes_in_reverse():
    calls = []
    drive(Tracker([Recorder("a", calls), Recorder("b", calls)]))
    expected = [("start", RUN), ("log", {"steps": 1}), ("log", {"steps": 2}), ("note", "hello")]
    forward = [(name, *call) for call in expected for name in "ab"]
    assert calls == [*forward, ("b", "finish", {"steps": 2}), ("a", "finish", {"steps": 2})]


@pytest.mark.parametrize(
    ("method", "tried"),
    [
        ("start", ["start"]),
        ("log", ["start", "log"]),
        ("note", ["start", "log", "log", "note"]),
        ("finish", ["start", "log", "log", "note", "finish"]),
    ],
)
def test_tracker_switches_a_failing_sink_off_and_reports_once(method, tried):
    broken, recorder = Broken(method), Recorder()
    tracker = Tracker([recorder, broken])
    drive(tracker)
    assert broken.tried == tried
    notes = [value for _, name, value in recorder.calls if name == "note"]
    (report,) = [note for note in notes if note != "hello"]
    for part in ("Broken", "runs/toy/metrics.csv", "No space left on device"):
        assert part in report
    assert tracker.failures == [report]
    assert [value for _, name, value in recorder.calls if name == "log"] == [
        {"steps": 1},
        {"steps": 2},
    ]
    assert recorder.calls[-1] == ("", "finish", {"steps": 2, "sinks_failed": [report]})


def test_tracker_names_the_run_directory_when_the_error_has_no_path():
    tracker = Tracker([Recorder(), Broken("log", OSError(28, "No space left on device"))])
    drive(tracker)
    assert str(RUN.directory) in tracker.failures[0]


@pytest.mark.parametrize("others", [[], [Sink()]])
def test_tracker_reports_on_stderr_when_no_sink_takes_notes(others, capsys):
    drive(Tracker([Broken("log"), *others]))
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_tracker_survives_a_sink_failing_on_the_report_of_another():
    first, second, recorder = Broken("log"), Broken("note"), Recorder()
    tracker = Tracker([first, second, recorder])
    drive(tracker)
    assert len(tracker.failures) == 2
    assert "note" in second.tried
    assert recorder.calls[-1][1] == "finish"


def test_tracker_lets_bugs_through_but_finishes_the_others():
    recorder = Recorder()
    tracker = Tracker([recorder, Broken("finish", ValueError("bug"))])
    with pytest.raises(ValueError, match="bug"):
        drive(tracker)
    assert recorder.calls[-1][1] == "finish"
    with pytest.raises(ValueError, match="bug"):
        drive(Tracker([Broken("log", ValueError("bug"))]))


class Unreachable(Exception):
    """A service's own, that is no OSError."""


def test_tracker_drops_a_sink_for_what_it_calls_an_outside_error():
    broken, recorder = (
        Broken("log", Unreachable("timed out\n  while retrying " + "x " * 500)),
        Recorder(),
    )
    with pytest.raises(Unreachable):
        drive(Tracker([broken]))
    broken.outside_errors = (OSError, Unreachable)
    tracker = Tracker([recorder, broken])
    drive(tracker)
    (failure,) = tracker.failures
    assert "Broken switched off" in failure
    assert "timed out while retrying x x" in failure
    assert len(failure) < 400
    assert recorder.calls[-1][2]["sinks_failed"] == [failure]


@pytest.mark.parametrize("method", ["start", "log", "note", "finish"])
def test_tracker_stops_the_run_for_a_sink_that_says_so(method):
    broken, recorder = Broken(method), Recorder()
    broken.on_failure = "stop"
    tracker = Tracker([recorder, broken])
    with pytest.raises(OSError, match="No space left"):
        drive(tracker)
    if method != "finish":  # as a run does, whatever ended it
        tracker.finish({})
    assert broken.tried[-1] == method  # and nothing after its failure
    notes = [value for _, name, value in recorder.calls if name == "note"]
    (failure,) = tracker.failures
    assert failure in notes
    _, last, summary = recorder.calls[-1]
    assert (last, summary["sinks_failed"]) == ("finish", [failure])


def test_tracker_within_a_tracker_stops_the_run_too():
    broken = Broken("log")
    broken.on_failure = "stop"
    with pytest.raises(OSError, match="No space left"):
        drive(Tracker([Recorder(), Tracker([broken])]))
    broken = Broken("log")
    drive(Tracker([Recorder(), Tracker([broken])]))
    assert broken.tried == ["start", "log"]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "tensorboard.compat.proto"),
        ("wandb", "wandb"),
        ("mlflow", "alembic"),
    ],
)
def test_make_sinks_says_which_package_is_missing(monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        SettingError, match=rf"^tracking with '{name}' .*'rlws\[{name}\]'"
    ) as caught:
        make_sinks(("jsonl", name))
    assert "\n" not in str(caught.value)


def test_make_sinks_by_name(monkeypatch):
    monkeypatch.setitem(SINKS, "mine", Recorder)
    jsonl, mine = make_sinks(("jsonl", "mine", "jsonl"), on_failure="stop")
    assert (type(jsonl), type(mine)) == (Jsonl, Recorder)
    assert jsonl.on_failure == mine.on_failure == "stop"
    assert make_sinks(("jsonl",))[0].on_failure == "drop"
    assert make_sinks(()) == ()
    with pytest.raises(SettingError, match="did you mean 'jsonl'"):
        make_sinks(("json",))
    with pytest.raises(SettingError, match="on_failure"):
        make_sinks(("jsonl",), on_failure="stopp")


@pytest.mark.parametrize(
    ("budget", "row", "fraction"),
    [
        (100, {"steps": 25}, 0.25),
        (100, {"steps": 130}, 1.0),
        (100, {}, 0.0),
        (0, {"steps": 0}, 1.0),
    ],
)
def test_run_fraction(budget, row, fraction):
    assert RUN._replace(budget=budget).fraction(row) == fraction


def test_tracking_import_is_light():
    code = (
        "import sys, rlws; before = set(sys.modules); import rlws.tracking;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "assert not new & {'jax', 'haiku', 'matplotlib', 'imageio_ffmpeg', 'tensorboard', 'wandb',"
        " 'mlflow', 'sqlalchemy'}, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
