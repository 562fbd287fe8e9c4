"""Checkpoints under attack: what was written is read, or nothing is, and it is said."""

import builtins
import contextlib
import errno
import hashlib
import json
import os
import pathlib
import pickle
import re
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from rlws.numerics import checkpoint, trees
from rlws.numerics.checkpoint import CheckpointError, StorageError

FACTS = {"seconds": 1.5, "name": "é", "none": None, "nested": {"list": [1, 2]}}


def tree(step):
    """A state that no other step has; of more than one array and type."""
    return {
        "learner": {"w": np.full((3, 5), step, np.float32), "count": np.uint32(step)},
        "ended": np.zeros((0, 2)),
        "flags": np.arange(step, step + 7) % 2 == 0,
    }


def write(folder, *steps, keep=2):
    for step in steps:
        checkpoint.save(folder, f"{step:012d}", tree(step), FACTS, keep)
    return folder


def same(found, step):
    """Whether exactly what was saved at a step was read."""
    want = trees.flatten(tree(step))
    return found.facts == FACTS and trees.digest(found.arrays) == trees.digest(want)


def newest(folder):
    """Returns the newest whole checkpoint and what was said on the way."""
    said = []
    return checkpoint.newest(folder, said.append), said


def files(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def forge(path, **content):
    """Changes a checkpoint and mends the check sums, as one who means harm would."""
    manifest = json.loads((path / "manifest.json").read_text())
    found = manifest["content"] | content
    canonical = json.dumps(found, sort_keys=True, separators=(",", ":")).encode()
    sums = {"sha256": hashlib.sha256(canonical).hexdigest(), "content": found}
    (path / "manifest.json").write_text(json.dumps(sums))


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "complex64"),
        *("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "int4"),
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 3), (2, 1, 3)])
def test_save_then_read_gives_same_array(tmp_path, dtype, shape):
    bits = np.random.default_rng(0).integers(0, 2, shape) * 3 + 1
    x = bits.astype(jnp.dtype(dtype))
    path = checkpoint.save(tmp_path, "0", {"x": x}, {})
    found = checkpoint.read(path).arrays["x"]
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert found.tobytes() == x.tobytes()


def test_save_keeps_every_bit_of_floats_and_any_layout(tmp_path):
    odd = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 1, 0x7F800000], np.uint32)
    arrays = {
        "nan": odd.view(np.float32),
        "transposed": np.arange(12.0).reshape(3, 4).T,
        "strided": np.arange(10)[::3],
        "backwards": np.arange(5)[::-1],
        "device": jnp.arange(3),
        "python": 3.5,
    }
    found = checkpoint.read(checkpoint.save(tmp_path, "0", arrays, {})).arrays
    assert {k: x.tobytes() for k, x in found.items()} == {
        k: np.asarray(x).tobytes() for k, x in arrays.items()
    }


def test_save_of_empty_tree_is_read(tmp_path):
    found = checkpoint.read(checkpoint.save(tmp_path, "0", {}, FACTS))
    assert (found.arrays, found.facts) == ({}, FACTS)


def test_restore_lists_what_differs():
    arrays = trees.flatten({"a": np.zeros(3), "b": np.zeros(2, np.int32), "c": np.zeros(1)})
    like = {"a": np.zeros(4), "b": np.zeros(2, np.float32), "d": np.zeros(1)}
    with pytest.raises(checkpoint.SettingError) as error:
        trees.restore(like, arrays)
    text = str(error.value)
    for part in ("c: only saved", "a: saved float64[3], now float64[4]", "b: saved int32[2], now"):
        assert part in text
    assert "d: saved absent, now float64[1]" in text


def test_save_keeps_newest_and_removes_what_killed_processes_left(tmp_path):
    (tmp_path / ".000000000001.part").mkdir()
    (tmp_path / ".000000000001.part" / "arrays.bin").write_bytes(b"half")
    write(tmp_path, 9, 10, 11, 12, keep=2)
    assert sorted(x.name for x in tmp_path.iterdir()) == ["000000000011", "000000000012"]


@pytest.mark.parametrize("keep", [1, 2])
def test_save_below_damaged_ones_keeps_what_is_whole(tmp_path, keep):
    write(tmp_path, 1, 5, 6, keep=9)
    for step in (5, 6):
        (tmp_path / f"{step:012d}" / "arrays.bin").write_bytes(b"")
    write(tmp_path, 3, keep=keep)
    assert [int(name) for name in checkpoint.names(tmp_path)] == [1, 3][2 - keep :]
    write(tmp_path, 7, keep=keep)
    # Those that are damaged are gone, and do not take the place of a whole one.
    assert [int(name) for name in checkpoint.names(tmp_path)] == [3, 7][2 - keep :]
    found, said = newest(tmp_path)
    assert same(found, 7)
    assert not said


def test_save_below_whole_ones_leaves_them(tmp_path):
    write(tmp_path, 5, 6, keep=9)
    write(tmp_path, 3, keep=1)
    assert [int(name) for name in checkpoint.names(tmp_path)] == [3, 5, 6]


def test_save_of_same_name_replaces_damaged_and_leaves_whole(tmp_path):
    write(tmp_path, 1)
    before = files(tmp_path)
    checkpoint.save(tmp_path, f"{1:012d}", tree(5), FACTS)
    assert files(tmp_path) == before
    (tmp_path / f"{1:012d}" / "arrays.bin").write_bytes(b"")
    write(tmp_path, 1)
    assert files(tmp_path) == before


def test_newest_at_step(tmp_path):
    write(tmp_path, 5, 10, 15, keep=3)
    assert same(checkpoint.newest(tmp_path, print, at=12), 10)
    with pytest.raises(CheckpointError, match=r"no checkpoint at or before step 4 .*5, 10, 15"):
        checkpoint.newest(tmp_path, print, at=4)


def test_newest_without_any_is_none(tmp_path):
    assert checkpoint.newest(tmp_path, print) is None
    assert checkpoint.newest(tmp_path / "none", print) is None


# F02, F03, F20: every operation on the disk is the last, or fails.

OPERATIONS = (
    *((os, name) for name in ("rename", "fsync", "open", "mkdir", "unlink", "rmdir", "close")),
    (builtins, "open"),
)


class Killed(BaseException):
    """Nothing after this is done, not even tidying up."""


def watch(monkeypatch, folder, act):
    """Calls `act(name, argument)` before each operation on files below a folder."""
    for module, name in OPERATIONS:
        original = getattr(module, name)

        def operate(*args, _name=name, _original=original, **kwargs):
            act(_name, args[0])
            return _original(*args, **kwargs)

        monkeypatch.setattr(module, name, operate)


def kill_at(monkeypatch, folder, k, error):
    """Has the k-th operation raise; returns the operations there were."""
    seen = []

    def act(name, argument):
        seen.append(name)
        if len(seen) == k:
            raise error

    watch(monkeypatch, folder, act)
    return seen


def count_operations(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        write(tmp_path / "count", 1, 2)
        seen = kill_at(patch, tmp_path, 0, None)
        write(tmp_path / "count", 3)
    return len(seen)


def test_save_killed_at_any_operation_leaves_a_whole_checkpoint(tmp_path):
    total = count_operations(tmp_path)
    assert total >= 15
    for k in range(1, total + 1):
        folder = write(tmp_path / str(k), 1, 2)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, folder, k, Killed())
            with pytest.raises(Killed):
                write(folder, 3)
        found, said = newest(folder)
        assert not said, k
        assert same(found, 2) or same(found, 3), k
        write(folder, 4)  # without cleaning up
        assert sorted(x.name for x in folder.iterdir())[-1:] == [f"{4:012d}"]
        assert not list(folder.glob(".*")), k
        assert same(newest(folder)[0], 4)


def test_first_save_killed_at_any_operation_leaves_none_or_a_whole_one(tmp_path):
    for k in range(1, count_operations(tmp_path)):
        folder = tmp_path / str(k)
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
            kill_at(patch, folder, k, Killed())
            write(folder, 3)
        found, said = newest(folder)
        assert not said, k
        assert found is None or same(found, 3), k


def failure_of(folder):
    """Returns how the next save fails; None where what fails is no matter."""
    try:
        write(folder, 3)
    except StorageError as error:
        return error
    return None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_save_without_room_says_so_and_leaves_the_others(tmp_path, number):
    total = count_operations(tmp_path)
    failures = 0
    for k in range(1, total + 1):
        folder = write(tmp_path / str(k), 1, 2)
        before = files(folder)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, folder, k, OSError(number, os.strerror(number)))
            said = failure_of(folder)
        if said is not None:
            failures += 1
            assert (said.status, said.errno) == (7, number)
            assert str(folder) in str(said)
            assert os.strerror(number) in str(said)
        found, said = newest(folder)
        assert not said, k
        assert same(found, 2) or same(found, 3), k
        if same(found, 2):
            assert files(folder) == before, k
        write(folder, 4)
        assert same(newest(folder)[0], 4), k
        assert not list(folder.glob(".*")), k
    assert failures >= total - 2


def test_save_without_room_for_the_bytes_leaves_nothing(tmp_path, monkeypatch):
    write(tmp_path, 1, 2)
    before = files(tmp_path)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left") as error:
        write(tmp_path, 3)
    assert str(tmp_path) in str(error.value)
    assert files(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_save_of_what_is_no_number_leaves_nothing(tmp_path):
    write(tmp_path, 1)
    for bad in (np.array([object()]), np.array([None]), "text"):
        with pytest.raises(TypeError, match="bad"):
            checkpoint.save(tmp_path, f"{2:012d}", {"bad": bad}, {})
        assert [x.name for x in tmp_path.iterdir()] == [f"{1:012d}"]


def test_save_flushes_before_it_publishes_before_it_prunes(tmp_path, monkeypatch):
    write(tmp_path, 1, 2)
    seen = []
    synced, rename, rmdir = os.fsync, os.rename, pathlib.Path.rmdir

    def fsync(handle):
        path = pathlib.Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_file():  # all of it has left the process
            seen.append(f"fsync {path.name} {path.stat().st_size > 0}")
        else:
            seen.append(f"fsync {path.name}")
        synced(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(
        os, "rename", lambda a, b: (seen.append(f"rename {a.name} {b.name}"), rename(a, b))
    )
    monkeypatch.setattr(
        pathlib.Path, "rmdir", lambda path: (seen.append(f"rmdir {path.name}"), rmdir(path))
    )
    write(tmp_path, 3)
    assert seen == [
        "fsync arrays.bin True",
        "fsync manifest.json True",
        "fsync .000000000003.part",
        "rename .000000000003.part 000000000003",
        f"fsync {tmp_path.name}",
        "rename 000000000001 .000000000001.part",
        "rmdir .000000000001.part",
    ]


# F05, F06, F07: damage.


@pytest.mark.parametrize("name", ["arrays.bin", "manifest.json"])
@pytest.mark.parametrize("size", ["0", "1", "half", "less one", "one more", "gone", "folder"])
def test_newest_passes_over_truncated_aloud(tmp_path, name, size):
    write(tmp_path, 1, 2)
    path = tmp_path / f"{2:012d}" / name
    data = path.read_bytes()
    path.unlink()
    sizes = {"0": 0, "1": 1, "half": len(data) // 2, "less one": len(data) - 1}
    if size == "folder":
        path.mkdir()
    elif size == "one more":
        path.write_bytes(data + b"\0")
    elif size != "gone":
        path.write_bytes(data[: sizes[size]])
    found, said = newest(tmp_path)
    assert same(found, 1)
    assert [f"{2:012d}" in text for text in said] == [True]


@pytest.mark.parametrize("seed", range(4))
def test_newest_never_takes_a_flipped_bit(tmp_path, seed):
    write(tmp_path, 1, 2)
    paths = [tmp_path / f"{2:012d}" / name for name in ("arrays.bin", "manifest.json")]
    sizes = [path.stat().st_size for path in paths]
    rng = np.random.default_rng(seed)
    for offset in rng.choice(sum(sizes), 64, replace=False):
        which = int(offset >= sizes[0])
        path, place = paths[which], int(offset) - which * sizes[0]
        data = path.read_bytes()
        wrong = bytearray(data)
        wrong[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(wrong)
        found, said = newest(tmp_path)
        assert same(found, 1), (path.name, place)
        assert len(said) == 1
        path.write_bytes(data)
    assert same(newest(tmp_path)[0], 2)


def test_newest_with_all_damaged_names_each_and_deletes_nothing(tmp_path):
    write(tmp_path, 1, 2, 3, keep=3)
    (tmp_path / f"{1:012d}" / "manifest.json").unlink()
    (tmp_path / f"{2:012d}" / "arrays.bin").write_bytes(b"x")
    (tmp_path / f"{3:012d}" / "manifest.json").write_text("{}")
    before = files(tmp_path)
    with pytest.raises(CheckpointError) as error:
        newest(tmp_path)
    assert error.value.status == 3
    assert all(f"{step:012d}" in str(error.value) for step in (1, 2, 3))
    assert files(tmp_path) == before


def test_arrays_of_another_checkpoint_are_refused(tmp_path):
    write(tmp_path, 1, 2)
    one, two = (tmp_path / f"{step:012d}" for step in (1, 2))
    shutil.copyfile(one / "arrays.bin", two / "arrays.bin")
    assert same(newest(tmp_path)[0], 1)


# F09, G8: files that mean harm. Their check sums are right.


class Payload:
    def __init__(self, canary):
        self._canary = str(canary)

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self._canary),)


def poison(kind, canary):
    if kind == "pickle":
        return pickle.dumps(Payload(canary))
    array = np.array([Payload(canary)], object)
    path = canary.with_name("made.npy" if kind == "npy" else "made.npz")
    (np.save if kind == "npy" else np.savez)(path, array)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["pickle", "npy", "npz"])
@pytest.mark.parametrize("name", ["arrays.bin", "manifest.json", "extra.pkl", "extra.npy"])
def test_read_runs_nothing(tmp_path, kind, name):
    canary, folder = tmp_path / "canary", write(tmp_path / "checkpoints", 1, 2)
    path, data = folder / f"{2:012d}", poison(kind, canary)
    (path / name).write_bytes(data)
    if name == "arrays.bin":
        entries = [["x", "object", [1]], ["y", "uint8", [len(data) - 8]]]
        forge(path, arrays=entries, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    found, said = newest(folder)
    assert same(found, 2 if "extra" in name else 1)
    assert bool(said) is ("extra" not in name)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["pickle", "npy"])
def test_newest_runs_nothing_under_the_name_of_a_checkpoint(tmp_path, kind):
    canary, folder = tmp_path / "canary", write(tmp_path / "checkpoints", 1, 2)
    (folder / f"{3:012d}").write_bytes(poison(kind, canary))
    assert same(newest(folder)[0], 2)
    assert not canary.exists()


@pytest.mark.parametrize(
    "entry",
    [
        ["x", "float32", [2**62]],
        ["x", "float32", [2**62, 4]],  # 0 as an int64
        ["x", "float32", [2**32, 2**32]],
        ["x", "float32", [10**30]],
        ["x", "float32", [0, 10**30]],
        ["x", "float32", [-1]],
        ["x", "float32", [-1, -4]],
        ["x", "uint8", [-1]],
        ["x", "float32", [1.0]],
        ["x", "float32", [True]],
        ["x", "float32", ["4"]],
        ["x", "float32", "4"],
        ["x", "float32", [3]],  # not all of the file
        ["x", "float32", None],
        ["x", "object", [2]],
        ["x", "O", [2]],
        ["x", "V16", [1]],
        ["x", "U4", [1]],
        ["x", "datetime64[s]", [2]],
        ["x", "f4,f4", [2]],
        ["x", None, [2]],
        ["x", "no such", [4]],
        ["../x", "float32", [4]],
        ["a/../../x", "float32", [4]],
        ["/etc/x", "float32", [4]],
        [None, "float32", [4]],
        [7, "float32", [4]],
        [["x"], "float32", [4]],
        ["x", "float32"],
        ["x", "float32", [4], 5],
        "xyz",
        None,
    ],
    ids=str,
)
def test_read_refuses_forged_entries(tmp_path, entry):
    path = checkpoint.save(tmp_path, "1", {"x": np.arange(4, dtype=np.float32)}, {})
    forge(path, arrays=[entry])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        checkpoint.read(path)


def test_read_takes_forged_entries_that_are_right(tmp_path):
    path = checkpoint.save(tmp_path, "1", {"x": np.arange(4, dtype=np.float32)}, {})
    forge(path, arrays=[["y", "float32", [2, 2]]])
    assert checkpoint.read(path).arrays["y"].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize("arrays", [None, {}, "x", 3, [["x", "float32", [4]]] * 2])
def test_read_refuses_forged_lists(tmp_path, arrays):
    path = checkpoint.save(tmp_path, "1", {"x": np.arange(4, dtype=np.float32)}, {})
    forge(path, arrays=arrays)
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


@pytest.mark.parametrize("size", [2**70, 2**40, -1, None, "16", 16.5])
def test_read_refuses_claimed_sizes(tmp_path, size):
    path = checkpoint.save(tmp_path, "1", {"x": np.arange(4, dtype=np.float32)}, {})
    forge(path, size=size)
    with pytest.raises(CheckpointError, match="must have"):
        checkpoint.read(path)


def test_read_refuses_a_file_too_large_for_the_memory(tmp_path):
    path = checkpoint.save(tmp_path, "1", {"x": np.arange(4, dtype=np.float32)}, {})
    os.truncate(path / "arrays.bin", 2**43)  # takes no room
    forge(path, size=2**43)
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "3", "{}", '{"content": 3, "sha256": 3}', "[" * 100_000, "\0", "9" * 5000],
    ids=lambda text: text[:12],
)
def test_read_refuses_any_other_manifest(tmp_path, text):
    path = checkpoint.save(tmp_path, "1", {"x": np.arange(4)}, {})
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        checkpoint.read(path)


def test_a_checkpoint_of_a_newer_format_is_not_passed_over(tmp_path):
    write(tmp_path, 1, 2)
    forge(tmp_path / f"{2:012d}", format=2)
    with pytest.raises(CheckpointError, match=r"2 was written by a newer rlws.*format must be 1"):
        newest(tmp_path)
    assert same(checkpoint.newest(tmp_path, pytest.fail, at=1), 1)
    before = files(tmp_path)
    write(tmp_path, 2)  # nor written over, nor removed as damaged
    write(tmp_path, 1)
    assert files(tmp_path) == before


def test_a_renamed_checkpoint_is_damaged(tmp_path):
    path = checkpoint.save(tmp_path, "2", {}, {"step": 2})
    path.rename(tmp_path / "3")
    with pytest.raises(CheckpointError, match="3 must be of step 3, got 2"):
        checkpoint.read(tmp_path / "3")


def link(path, elsewhere):
    path.symlink_to(elsewhere, target_is_directory=True)


def half(path, elsewhere):
    """A checkpoint that lacks its manifest, in which somebody has put something."""
    path.mkdir()
    (path / "arrays.bin").write_bytes(b"half")
    (path / "mine.txt").write_text("mine")


LITTER = {
    "a link": link,
    "a link to nothing": lambda path, elsewhere: link(path, "nowhere"),
    "a link to a checkpoint": lambda path, elsewhere: link(path, f"{1:012d}"),
    "a file": lambda path, elsewhere: path.write_text("mine"),
    "a folder": lambda path, elsewhere: (path.mkdir(), (path / "mine.txt").write_text("mine")),
    "a link in a folder": lambda path, elsewhere: (
        path.mkdir(),
        link(path / "arrays.bin", elsewhere),
    ),
    "half a checkpoint": half,
}


@pytest.mark.parametrize("place", ["{0:012d}", ".{0:012d}.part", ".{2:012d}.part", "{1}"])
@pytest.mark.parametrize("litter", LITTER)
def test_what_is_no_checkpoint_of_ours_is_neither_followed_nor_removed(litter, place, tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "checkpoints"
    elsewhere.mkdir()
    for name in ("manifest.json", "arrays.bin", "mine.txt"):
        (elsewhere / name).write_text("mine")
    write(folder, 1)
    path = folder / place.format(3, 2019, 1)
    LITTER[litter](path, elsewhere)
    kept = lambda: {p: x for p, x in files(tmp_path).items() if x == b"mine"}
    before, linked = kept(), path.is_symlink()
    found, said = newest(folder)
    assert same(found, 1)
    assert (str(path) in " ".join(said)) == (not path.name.startswith("."))
    write(folder, 2, 3)
    write(folder, 4, keep=1)
    assert same(newest(folder)[0], 4)
    assert len(checkpoint.names(folder)) == 1
    assert kept() == before
    assert (path.is_symlink(), os.path.lexists(path)) == (linked, True)
