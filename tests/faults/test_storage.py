"""Disks that are full, read-only or damaged, and files that mean harm."""

import errno
import json
import os
import pathlib
import pickle
import shlex
import shutil
import sys

import numpy as np
import pytest
from faulty import MEASURED, left, play, refused
from processes import done, end, outcome, own_cache, program, run_of

from rlws.__main__ import main
from rlws.numerics import checkpoint
from rlws.tracking import files


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_from(patch, count):
    """Has the disk be full from this flush of a checkpoint on."""
    fsync, calls = os.fsync, []

    def flush(handle):
        if "checkpoints" in os.readlink(f"/proc/self/fd/{handle}"):
            calls.append(handle)
        full() if len(calls) >= count else fsync(handle)

    patch.setattr(os, "fsync", flush)


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [1, 6, *(pytest.param(x, marks=pytest.mark.slow) for x in (4, 5, 7, 8, 50))]
)
def test_a_full_disk_ends_the_run_which_goes_on_when_there_is_room(
    count, tmp_path, capfd, in_peace
):
    with pytest.MonkeyPatch.context() as patch:
        full_from(patch, count)
        status, line = refused(capfd, tmp_path)
    assert (status, "No space left on device" in line, str(tmp_path) in line) == (7, True, True)
    folder = tmp_path / "checkpoints"
    assert not list(folder.glob(".*"))
    assert len(checkpoint.names(folder)) == min(2, count // 4)
    assert count < 4 or checkpoint.newest(folder, pytest.fail) is not None
    play(tmp_path)
    assert left(tmp_path) == in_peace


@pytest.mark.slow
def test_a_full_disk_need_not_end_the_run(tmp_path, capfd, in_peace):
    with pytest.MonkeyPatch.context() as patch:
        full_from(patch, 6)
        summary = play(tmp_path, "--checkpoint.on-error", "continue")
    warnings = capfd.readouterr().err.splitlines()
    assert all("warning: no checkpoint at step" in x and "No space left" in x for x in warnings)
    assert len(warnings) >= 10
    assert {k: v for k, v in summary.items() if k not in MEASURED} == in_peace["summary"]


def test_metrics_that_cannot_be_written_are_given_up_aloud(tmp_path, capfd, monkeypatch, in_peace):
    append = files.append
    monkeypatch.setattr(files, "append", lambda path, line: append(pathlib.Path("/dev/full"), line))
    play(tmp_path)
    said = capfd.readouterr()
    summary = json.loads((tmp_path / "summary.json").read_text())
    for text in (*summary["sinks_failed"], said.out + said.err):
        assert "Csv switched off" in text
        assert "No space left" in text
    assert left(tmp_path)["arrays"] == in_peace["arrays"]


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "run"
    play(folder, "--steps", "20")
    return folder


HARM = ("config.json", "summary.json", "metrics.csv", ".lock", "manifest.json", "arrays.bin")


@pytest.mark.parametrize("name", [*HARM, "extra.pkl"])
@pytest.mark.parametrize("kind", ["pickle", "npy"])
def test_files_that_mean_harm_are_not_run(name, kind, begun, tmp_path, capfd):
    folder, canary = shutil.copytree(begun, tmp_path / "run"), tmp_path / "canary"
    paths = list(folder.rglob(name)) or [
        folder / name,
        folder / "checkpoints" / name,
        folder / "checkpoints" / "0" / name,
    ]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        if kind == "pickle":
            path.write_bytes(pickle.dumps(Canary(canary)))
        else:
            with open(path, "wb") as file:
                np.save(file, np.array([Canary(canary)], object), allow_pickle=True)
    statuses = [main([verb, str(folder)]) for verb in ("inspect", "list")]
    try:
        play(folder, "--steps", "20")
    except SystemExit as end:
        statuses.append(end.code)
    assert not canary.exists()
    assert set(statuses) <= {0, 2, 3}
    assert all(x.startswith(("error: ", "warning: ")) for x in capfd.readouterr().err.splitlines())


CODE = "__import__('pathlib').Path('canary').touch()"


@pytest.mark.parametrize(
    "flags",
    [
        ("--agent.learning-rate", CODE),
        ("--agent.backbone.hidden-sizes", CODE),
        ("--environment", f"!!python/object/apply:{CODE}"),
        ("--sweep", f"agent.learning-rate={CODE}"),
        ("--seed", f"$({CODE})"),
    ],
    ids=lambda x: x[0],
)
def test_settings_are_no_code(flags, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _ = refused(capfd, tmp_path / "run", *flags)
    assert status == 2
    assert not list(tmp_path.iterdir())


MOUNT = ("unshare", "--user", "--map-root-user", "--mount")


def shell(script, folder, *args):
    """Runs a script with mounts of its own, `$folder` and `$rlws`; skips where there are none."""
    if not shutil.which("unshare") or end(program(*MOUNT, "true")).status:
        pytest.skip("no mounts of our own")
    words = {"folder": [folder], "rlws": [sys.executable, "-m", "rlws", *args]}
    lines = (f"{name}={shlex.quote(shlex.join(map(str, x)))}\n" for name, x in words.items())
    cache = own_cache()
    try:
        words = (*MOUNT, "sh", "-c", "".join(lines) + script)
        ended = end(program(*words, JAX_COMPILATION_CACHE_DIR=str(cache)))
    finally:
        shutil.rmtree(cache)
    assert ended.status == 0, ended.err
    return ended


@pytest.mark.slow
def test_a_small_disk_fills_up_and_is_given_room(tmp_path, uninterrupted):
    _, want = uninterrupted("dqn")
    script = """
        mount -t tmpfs -o size=300k none $folder
        $rlws && exit 1
        test $? = 7 || exit 2
        test -z "$(find $folder -name '.*.part')" || exit 3
        mount -o remount,size=64m $folder
        $rlws && cp -r $folder/run $folder.kept
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    flags = run_of("dqn", folder / "run", "--checkpoint.keep", "99")
    ended = shell(script, folder, *flags)
    assert "No space left on device" in ended.err
    assert str(folder) in ended.err
    assert outcome(tmp_path / "disk.kept") == want


@pytest.mark.slow
def test_a_disk_that_is_read_only_is_named_before_anything_is_done(tmp_path):
    done(*run_of("reinforce", tmp_path / "run", "--steps", "300"))
    for name, status in (("new", 2), ("run", 7)):
        folder = tmp_path / name
        script = f"""
            mount --bind $folder $folder && mount -o remount,bind,ro $folder
            $rlws; test $? = {status}
        """
        folder.mkdir(exist_ok=True)
        ended = shell(script, folder, *run_of("reinforce", folder))
        (line,) = ended.err.splitlines()
        assert line.startswith("error: ")
        assert "Read-only file system" in line
        assert str(folder) in line


@pytest.mark.slow
def test_files_may_not_be_as_large_as_they_must(tmp_path):
    script = "ulimit -f 16; exec $rlws"  # kB, or half of it
    ended = shell(f"({script}); test $? = 7", tmp_path, *run_of("dqn", tmp_path / "run"))
    assert "File too large" in ended.err.splitlines()[-1]
    assert checkpoint.newest(tmp_path / "run" / "checkpoints", pytest.fail) is None
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
