"""Where an error comes from: the line of somebody's own code, among those of libraries."""

import contextlib
import pathlib
import sysconfig
import traceback
from collections.abc import Iterator

import jax

from rlws.settings import SettingError

OURS = pathlib.Path(__file__).parents[1]  # rlws
LIBRARIES = [
    pathlib.Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
]


def place_of(error: BaseException) -> str:
    """Returns the innermost place that is in no library: "folder/file:line function".

    Of an error that never was in such a place, where it was raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "?"
    own = [frame for frame in frames if _is_own(pathlib.Path(frame.filename).resolve())]
    frame = (own or frames)[-1]
    return f"{'/'.join(pathlib.Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"


def _is_own(file: pathlib.Path) -> bool:
    if file.is_relative_to(OURS):
        return False
    return not any(file.is_relative_to(library) for library in LIBRARIES)


@contextlib.contextmanager
def stepped_through(what: str) -> Iterator[None]:
    """Has an error say where it comes from, and how to step through what was being compiled."""
    try:
        yield
    except SettingError:  # which says what to do
        raise
    except Exception as error:
        if not jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            error.add_note(
                f"at {place_of(error)}, while {what} was compiled; to step through it, run this "
                "under `python -m pdb` with HostTrainer(jit=False), that is --trainer host "
                "--trainer.no-jit"
            )
        raise
