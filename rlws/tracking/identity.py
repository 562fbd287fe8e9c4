"""What names a run beyond this machine."""

import pathlib
import re
import secrets

from rlws.tracking.files import replacing
from rlws.tracking.sink import Run


def name_of(run: Run) -> str:
    """Returns the name of the run's folder."""
    return run.directory.resolve().name


def new_identity(run: Run) -> str:
    """Returns the name of the run's folder, as letters, digits and dashes, with a random end.

    Folders are named by time and seed, so two experiments may well have equal ones.
    """
    name = re.sub(r"[^\w.-]+", "-", name_of(run), flags=re.ASCII)[:50]
    return f"{name}-{secrets.token_hex(4)}"


def recall(path: pathlib.Path, run: Run) -> str | None:
    """Returns what `remember` wrote, if the run is a resumed one."""
    if run.resumed_steps is None or not path.exists():
        return None
    return path.read_text(encoding="utf-8").strip()


def remember(path: pathlib.Path, identity: str) -> None:
    """Writes by which identity a service knows the run."""
    with replacing(path) as temporary:
        temporary.write_text(identity + "\n", encoding="utf-8")
