"""The checkpointer of a run: one writer to a folder, and saving when it is due."""

import contextlib
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest.mock
import weakref

import numpy as np
import pytest

from rlws.numerics import checkpoint
from rlws.numerics.checkpoint import CheckpointError, StorageError
from rlws.runs import checkpointer
from rlws.runs.checkpointer import Checkpointer, InUseError
from rlws.runs.experiment import Checkpoints
from rlws.trainers import Snapshot

ROOT = pathlib.Path(__file__).parents[2]
SNAPSHOT = Snapshot({"x": np.arange(3)}, {"rows": 7})
HOLD = f"""
import pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Checkpoints
held = Checkpointer(pathlib.Path(sys.argv[1]), Checkpoints(), {{}})
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes only when told; its first entry is the time."""
    now = [1000.0]
    monkeypatch.setattr(checkpointer.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def kept(tmp_path):
    """Makes checkpointers of the same folder, closed at the end."""
    made = []

    def make(**settings):
        made.append(Checkpointer(tmp_path, Checkpoints(**settings), {"exact": True}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_second_checkpointer_is_refused_and_first_untouched(tmp_path, kept):
    first = kept()
    first.save(3, SNAPSHOT, {})
    before = tree(tmp_path)
    with pytest.raises(InUseError, match=f"process {os.getpid()} on .* since ") as error:
        kept()
    assert error.value.status == 6
    assert tree(tmp_path) == before
    first.save(4, SNAPSHOT, {})
    first.close()
    assert kept().saved.facts["step"] == 4


@pytest.mark.slow
def test_checkpointer_of_another_process_is_in_the_way_until_it_is_killed(tmp_path, kept):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(InUseError, match=f"process {process.pid} on "):
            kept()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    kept()


def test_checkpointer_that_finds_no_whole_checkpoint_lets_go_of_the_folder(tmp_path, kept):
    (tmp_path / "checkpoints" / "000000000001").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(CheckpointError):
            kept()


def test_checkpointer_in_a_folder_that_is_not_writable_says_so(tmp_path):
    with pytest.raises(StorageError, match="none"):
        Checkpointer(tmp_path / "none", Checkpoints(), {})


@pytest.mark.parametrize("call", ["flush", "truncate", "write"])
def test_lock_that_cannot_be_written_is_a_matter_of_storage(tmp_path, monkeypatch, call):
    opened = []

    def failing(*args, **kwargs):
        file = open(*args, **kwargs)  # noqa: SIM115
        opened.append(file)
        broken = unittest.mock.Mock(wraps=file)
        broken.fileno, broken.name = file.fileno, file.name
        getattr(broken, call).side_effect = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return broken

    monkeypatch.setattr(checkpointer, "open", failing, raising=False)
    with pytest.raises(StorageError, match=r"quota exceeded.*\.lock") as error:
        Checkpointer(tmp_path, Checkpoints(), {})
    assert error.value.status == 7
    assert opened[0].closed


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOLCK, StorageError), (errno.EIO, StorageError), (errno.EAGAIN, InUseError)],
)
def test_only_a_lock_that_is_held_means_in_use(tmp_path, monkeypatch, number, kind):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpointer.fcntl, "flock", refuse)
    with pytest.raises(kind):
        Checkpointer(tmp_path, Checkpoints(), {})


def test_due_at_first_and_then_each_period(kept):
    found = kept(period=10)
    assert found.due(0)
    found.save(0, SNAPSHOT, {})
    assert [found.due(step) for step in (0, 1, 9, 10, 25)] == [False, False, False, True, True]
    found.save(25, SNAPSHOT, {})
    assert [found.due(step) for step in (25, 29, 30)] == [False, False, True]


def test_due_each_minute(kept, clock):
    found = kept()
    found.save(0, SNAPSHOT, {})
    for seconds, due in ((0, False), (59, False), (60, True), (600, True)):
        clock[0] = 1000.0 + seconds
        assert found.due(10**6) is due


def test_due_at_a_hundredth_of_the_time(kept, clock, monkeypatch):
    found = kept()
    save = checkpoint.save

    def slow(*args):
        clock[0] += 2.0
        return save(*args)

    monkeypatch.setattr(checkpointer.checkpoint, "save", slow)
    found.save(0, SNAPSHOT, {})
    ended = clock[0]
    for seconds, due in ((60, False), (199, False), (200, True)):
        clock[0] = ended + seconds
        assert found.due(1) is due


def test_resumed_checkpointer_is_due_relative_to_what_was_saved(kept):
    first = kept(period=10)
    first.save(25, SNAPSHOT, {})
    first.close()
    second = kept(period=10)
    assert [second.due(step) for step in (25, 29, 30)] == [False, False, True]


def test_save_keeps_what_it_was_given(kept):
    found = kept(keep=3)
    for step in range(5):
        found.save(step, SNAPSHOT, {"seconds": 0.5})
    found.close()
    assert checkpoint.names(found.folder) == [f"{step:012d}" for step in (2, 3, 4)]
    saved = kept().saved
    np.testing.assert_array_equal(saved.arrays["x"], SNAPSHOT.arrays["x"])
    assert saved.facts["versions"]["jax"]
    assert saved.facts["machine"]["devices"]
    del saved.facts["versions"], saved.facts["machine"]
    assert saved.facts == {"exact": True, "seconds": 0.5, "step": 4, "trainer": {"rows": 7}}


@pytest.mark.parametrize("member", [None, "0_seed0"])
def test_rows_are_on_the_disk_before_the_checkpoint_is_there(tmp_path, kept, monkeypatch, member):
    found, seen = kept(), []
    for folder in (tmp_path, tmp_path / "0_seed0", tmp_path / "1_seed1"):
        folder.mkdir(exist_ok=True)
        (folder / "metrics.csv").write_text("steps\n")
    fsync, rename = os.fsync, os.rename
    seen_at = lambda path: seen.append(str(pathlib.Path(path).relative_to(tmp_path)))
    monkeypatch.setattr(
        os, "fsync", lambda handle: (seen_at(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (seen_at(b), rename(a, b)))
    found.save(3, SNAPSHOT, {}, None if member is None else tmp_path / member)
    place = f"checkpoints/{3:012d}" if member is None else f"{member}/checkpoints/{3:012d}"
    before = seen[: seen.index(place)]
    records = {"0_seed0/metrics.csv", "0_seed0"}
    if member is None:
        records |= {"metrics.csv", ".", "1_seed1/metrics.csv", "1_seed1"}
    assert records <= set(before)
    assert (member is None) == ("metrics.csv" in before)


def test_rows_that_cannot_be_kept_are_a_matter_of_storage(tmp_path, kept, monkeypatch):
    (tmp_path / "metrics.csv").write_text("steps\n")
    found = kept()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        found.save(3, SNAPSHOT, {})
    assert not found.folder.exists()


def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_save_that_fails_stops(kept, monkeypatch):
    found = kept()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        found.save(1, SNAPSHOT, {})


def test_save_that_fails_goes_on_where_it_should(kept, monkeypatch, capfd):
    found = kept(on_error="continue", period=10)
    found.save(0, SNAPSHOT, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        found.save(1_000, SNAPSHOT, {})
    assert "no checkpoint at step 1,000" in (err := capfd.readouterr().err)
    assert "No space left" in err
    assert checkpoint.names(found.folder) == [f"{0:012d}"]
    # Not at every report, each of which would try in vain.
    assert [found.due(step) for step in (1_001, 1_009, 1_010)] == [False, False, True]
    found.save(1_010, SNAPSHOT, {})
    assert checkpoint.names(found.folder) == [f"{0:012d}", f"{1010:012d}"]


def test_first_save_that_fails_is_tried_again_when_due(kept, monkeypatch, clock):
    each = kept(on_error="continue", period=10)
    monkeypatch.setattr(os, "fsync", full)
    each.save(0, SNAPSHOT, {})
    assert [each.due(step) for step in (1, 9, 10)] == [False, False, True]
    each.close()
    minute = kept(on_error="continue")
    minute.save(0, SNAPSHOT, {})
    assert not minute.due(1)
    clock[0] += 60
    assert minute.due(1)


def test_forget_frees_the_arrays_also_where_others_hold_the_tree(kept):
    first = kept()
    first.save(3, SNAPSHOT, {})
    first.close()
    found = kept()
    resume = Snapshot(found.saved.arrays, {})  # as a trainer's frame does
    array = weakref.ref(resume.arrays["x"])
    found.forget()
    assert array() is None
    found.forget()  # at each report


def test_resumed_steps_are_those_logged_before(kept):
    fresh = kept()
    assert fresh.resumed_steps(0) is None
    fresh.save(9, SNAPSHOT, {"recorders": [{"steps": 5}, {"steps": None}, {"steps": 2}]})
    fresh.close()
    found = kept()
    assert [found.resumed_steps(member) for member in (0, 2, None)] == [5, 2, 7]


def test_resumed_steps_of_a_run_that_logged_nothing_are_those_of_a_fresh_one(kept):
    first = kept()
    first.save(0, SNAPSHOT, {"recorders": [{"steps": None}, {"steps": None}]})
    first.close()
    found = kept()
    # Not 0: the row at step 0 comes again.
    assert [found.resumed_steps(member) for member in (0, 1, None)] == [None, None, None]


def test_files_and_threads_stay_as_many(kept):
    found = kept()
    found.save(0, SNAPSHOT, {})
    before = len(os.listdir("/proc/self/fd"))
    for step in range(1, 50):
        found.save(step, SNAPSHOT, {})
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["removed", "moved", "another in its place"])
def test_a_folder_that_is_gone_is_not_made_anew(tmp_path, how):
    folder = tmp_path / "run"
    folder.mkdir()
    with contextlib.closing(Checkpointer(folder, Checkpoints(), {})) as found:
        found.save(1, SNAPSHOT, {})
        if how == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        if how == "another in its place":
            folder.mkdir()
        with pytest.raises(StorageError, match=r"removed or moved while the run .*run'"):
            found.save(2, SNAPSHOT, {})
    assert not (folder / "checkpoints").exists()


def test_a_lock_that_is_a_link_empties_nothing(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(StorageError, match=r"\.lock"):
        Checkpointer(tmp_path / "run", Checkpoints(), {})
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_folder_of_a_member_that_is_gone_is_not_made_again(tmp_path, kept):
    with pytest.raises(StorageError, match="member"):
        kept().save(1, SNAPSHOT, {}, tmp_path / "member")
    assert not (tmp_path / "member").exists()
