"""Checkpoints: a tree of arrays and a manifest, written whole or not at all, and never run.

    checkpoints/000000012000/manifest.json   what there is: names, types, shapes, check sums, facts
    checkpoints/000000012000/arrays.bin      the arrays, one after the other

A checkpoint appears by renaming a finished folder, so that at any instant after the first there is
a complete one. Every byte is covered by a check sum; a damaged checkpoint is passed over aloud for
the one before. Nothing in it is code.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from rlws.numerics import trees
from rlws.settings import SettingError

FORMAT = 1
FILES = "manifest.json", "arrays.bin"  # of a checkpoint
KEEP = 2  # the newest, and one in case that is damaged


class CheckpointError(SettingError):
    """There is no usable checkpoint: each was looked at and says why it is none."""

    status = 3


class NewerError(CheckpointError):
    """A checkpoint is whole, but of a format that is not known here; none before it will do."""


class StorageError(OSError):
    """A checkpoint could not be written; those from before are as they were."""

    status = 7


class Checkpoint(NamedTuple):
    """A checkpoint that was read and found whole."""

    path: pathlib.Path
    arrays: dict[str, np.ndarray]  # by path in the tree
    facts: dict[str, Any]  # whatever else: counters, settings


@contextlib.contextmanager
def storing(place: pathlib.Path) -> Iterator[None]:
    """Within it, what the disk cannot do is a StorageError; of this place, unless it names one."""
    try:
        yield
    except OSError as error:
        raise StorageError(error.errno, error.strerror, str(error.filename or place)) from error


def save(
    folder: pathlib.Path, name: str, tree: Any, facts: Mapping[str, Any], keep: int = KEEP
) -> pathlib.Path:
    """Writes a checkpoint as `folder / name` and then removes all but the newest `keep` up to it.

    With `keep` 0, all others are removed.

    One of that name which is whole stays as it is. What else has such a name stays, too: then the
    checkpoint gets one more 0 before it. The folder that `folder` lies in must be there.

    Raises:
      StorageError: no room, no permission; what was there before is untouched.
      TypeError: a leaf is no number.
    """
    arrays = trees.flatten(tree)
    for path, x in arrays.items():
        _checked(path, x.dtype)
    with storing(folder):
        if not folder.is_dir():
            folder.mkdir()
            sync(folder.parent)
        while os.path.lexists(target := folder / name):
            if not _ours(target):
                name = f"0{name}"
            elif _whole(target):
                return target
            else:
                _clear(target)
        for remains in folder.glob(".*.part"):  # of a process that was killed
            if _ours(remains):
                _clear(remains)
        temporary = _part(target)
        temporary.mkdir()
        try:
            _write(temporary, arrays, dict(facts))
            os.rename(temporary, target)
        except OSError:
            with contextlib.suppress(OSError):
                _clear(temporary)
            raise
        sync(folder)
        before = [each for each in names(folder) if int(each) <= int(name)]
        # A resumed run began below these since they are damaged; later they would count as whole.
        above = [each for each in names(folder) if int(each) > int(name)]
        damaged = [each for each in above if not (keep and _whole(folder / each))]
        for old in before[: -(keep or 1)] + damaged:
            _remove(folder / old)
        return target


def sync(path: pathlib.Path) -> None:
    """Has the bytes of a file, or the names in a folder, written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def names(folder: pathlib.Path) -> list[str]:
    """Returns the names of all checkpoints, oldest first; whole or not is not looked at."""
    return sorted((path.name for path in _numbered(folder) if _ours(path)), key=int)


def _numbered(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns all that is called like a checkpoint."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return [path for path in paths if path.name.isascii() and path.name.isdigit()]


def _ours(path: pathlib.Path) -> bool:
    """Returns whether there is a checkpoint, or a part of one, and not a link to one."""
    if path.is_symlink() or not path.is_dir():
        return False
    files = [path / name for name in FILES if os.path.lexists(path / name)]
    known = all(file.is_file() and not file.is_symlink() for file in files)
    return known and (bool(files) or not any(path.iterdir()))


READS = 5  # of a folder whose writer may take away what was just listed


def newest(
    folder: pathlib.Path, warn: Callable[[str], None], at: int | None = None
) -> Checkpoint | None:
    """Returns the newest checkpoint that is whole, or None where none was ever written.

    Args:
      folder: of the checkpoints of a run.
      warn: is told of each that had to be passed over.
      at: the newest one not beyond this step.

    Raises:
      CheckpointError: there are checkpoints and none is whole.
    """
    for _ in range(READS):
        before = names(folder)
        try:
            found = _newest(folder, before, warn, at)
        except CheckpointError:
            if names(folder) == before:
                raise
        else:
            if found is not None or names(folder) == before:
                return found
    return _newest(folder, names(folder), warn, at)


def _newest(folder, known, warn, at):
    for path in _numbered(folder):
        if os.path.lexists(path) and not _ours(path):
            warn(f"{path} is no checkpoint, but called like one: it is left alone")
    if at is not None:
        known = [name for name in known if int(name) <= at]
        if not known:
            have = ", ".join(str(int(name)) for name in names(folder)) or "none"
            raise CheckpointError(f"no checkpoint at or before step {at} in {folder}; have {have}")
    reasons = []
    for name in reversed(known):
        try:
            return read(folder / name)
        except NewerError:
            raise
        except CheckpointError as error:
            reasons.append(str(error))
            warn(f"checkpoint passed over: {error}")
    if not reasons:
        return None
    raise CheckpointError(f"no checkpoint in {folder} is whole: " + "; ".join(reasons))


def read(path: pathlib.Path) -> Checkpoint:
    """Returns a checkpoint, all of it checked.

    Raises:
      CheckpointError: something about it is not as it was written; nothing else is ever raised.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        content = manifest["content"]
        if hashlib.sha256(_canonical(content)).hexdigest() != manifest["sha256"]:
            raise CheckpointError(f"{path / 'manifest.json'} was changed: wrong check sum")
        if content["format"] != FORMAT:
            raise NewerError(
                f"{path} was written by a newer rlws: its format must be {FORMAT}, got "
                f"{content['format']}; install that rlws"
            )
        step = content["facts"].get("step", 0)
        if path.name.isdigit() and step and step != int(path.name):
            raise CheckpointError(f"{path} must be of step {int(path.name)}, got {step}: renamed")
        arrays = _arrays(path / "arrays.bin", content)
        return Checkpoint(path, arrays, content["facts"])
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


# All that damage, or harm that is meant, can come to in `read`.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(RecursionError, OverflowError, MemoryError),
)


def _arrays(path: pathlib.Path, content: dict[str, Any]) -> dict[str, np.ndarray]:
    layout = [_entry(*entry) for entry in content["arrays"]]
    size = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in layout)
    if not content["size"] == size == path.stat().st_size:  # before anything is allocated
        raise CheckpointError(f"{path} must have {size} bytes, got {path.stat().st_size}")
    data = np.fromfile(path, np.uint8)
    if hashlib.sha256(trees.octets(data)).hexdigest() != content["sha256"]:
        raise CheckpointError(f"{path} was changed: wrong check sum")
    arrays, start = {}, 0
    for name, dtype, shape in layout:
        end = start + math.prod(shape) * dtype.itemsize
        arrays[name] = data[start:end].view(dtype).reshape(shape)
        start = end
    return arrays


def _entry(name: str, kind: str, shape: list[int]) -> tuple[str, np.dtype, list[int]]:
    # By name: bfloat16 and its kin, which JAX has registered, have no letter of their own.
    dtype = np.dtype(jax.numpy.dtype(kind))
    if _checked(name, dtype) != kind:
        raise ValueError(f"{name} must be of {dtype.name}, got {kind!r}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name} must have a shape, got {shape!r}")
    return name, dtype, shape


def _write(folder: pathlib.Path, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    found, size, entries = hashlib.sha256(), 0, []
    with open(folder / "arrays.bin", "wb") as file:
        for name, x in arrays.items():
            x = np.ascontiguousarray(x).reshape(x.shape)
            data = trees.octets(x)
            found.update(data)
            file.write(data)
            size += x.nbytes
            entries.append([name, x.dtype.name, list(x.shape)])
        file.flush()
        os.fsync(file.fileno())
    content = {
        "format": FORMAT,
        "sha256": found.hexdigest(),
        "size": size,
        "arrays": entries,
        "facts": facts,
    }
    manifest = {"sha256": hashlib.sha256(_canonical(content)).hexdigest(), "content": content}
    with open(folder / "manifest.json", "w", encoding="utf-8") as text:
        json.dump(manifest, text, indent=1)
        text.flush()
        os.fsync(text.fileno())
    sync(folder)


def _checked(name: str, dtype: np.dtype) -> str:
    """Returns the name of the type of an array that may be in a checkpoint."""
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"arrays must have names such as state/params, got {name!r}")
    if dtype.kind != "b" and not jax.numpy.issubdtype(dtype, np.number):
        raise TypeError(f"{name} must be an array of numbers, got {dtype}")
    return dtype.name


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _whole(path: pathlib.Path) -> bool:
    try:
        read(path)
    except NewerError:
        return True
    except CheckpointError:
        return False
    return True


def _remove(path: pathlib.Path) -> None:
    # Under another name first: one that is half removed must not be taken for a damaged one.
    doomed = _part(path)
    os.rename(path, doomed)
    _clear(doomed)
    if doomed.exists():  # as there is more in it
        os.rename(doomed, path)


def _clear(path: pathlib.Path) -> None:
    """Removes a checkpoint, or a part of one, but nothing that somebody has put there."""
    for name in FILES:
        (path / name).unlink(missing_ok=True)
    if not any(path.iterdir()):
        path.rmdir()


def _part(path: pathlib.Path) -> pathlib.Path:
    """Returns a name for what becomes a checkpoint, or was one, that nothing has."""
    options = (path.with_name(f".{path.name}{n or ''}.part") for n in itertools.count())
    return next(option for option in options if not os.path.lexists(option))
