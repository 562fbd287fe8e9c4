"""Run folders: what a run left behind, read again."""

import contextlib
import csv
import json
import os
import pathlib
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rlws import sources
from rlws.environments.registry import registered
from rlws.runs.differences import KEPT, differing, flat
from rlws.settings import SettingError, describe, renewed, revive
from rlws.tracking.files import write_json

if TYPE_CHECKING:
    from rlws.numerics.checkpoint import Checkpoint
    from rlws.runs.experiment import Experiment

# What may change when a run goes on: how long, and what is kept of it.
FREE = KEPT | {"steps", "episodes", "evaluation"}
SCRIPTS = "scripts.json"  # files of the user's own that a run is made of
PACKAGES = (
    *("rlws", "jax", "jaxlib", "dm-haiku", "optax", "rlax", "dm-env", "numpy"),
    *("gymnasium", "gymnax", "envpool", "dm_control", "mujoco"),
)


def experiment_of(directory: str | pathlib.Path) -> "Experiment":
    """Returns the experiment whose run the folder holds, as its config.json says.

    Raises:
      SettingError: there is no run in it, or its classes are not to be found from here.
    """
    from rlws.runs.experiment import Experiment  # with all of JAX

    _load_scripts(pathlib.Path(directory))
    found = revive(configuration(directory), "config.json")
    if not isinstance(found, Experiment):
        path = pathlib.Path(directory) / "config.json"
        raise SettingError(f"{path} must describe an Experiment, got {type(found).__name__}")
    _, *module = found.environment.split(":")[:-1]
    if module:  # gymnasium would import it
        try:
            sources.module(module[0])
        except ImportError as error:
            raise SettingError(f"environment {found.environment}: {error}") from None
    return found


def keep_scripts(experiment: "Experiment", directory: pathlib.Path) -> None:
    """Writes down which scripts of the user's own a run is made of, if any."""
    types = [x for name, x in flat(describe(experiment)).items() if name.endswith("type")]
    used = {str(x).partition(":")[0] for x in types}
    used.add(getattr(registered().get(experiment.environment), "__module__", ""))
    if found := {name: file for name in used if (file := sources.file_of(name))}:
        write_json(directory / SCRIPTS, found)


def _load_scripts(directory: pathlib.Path) -> None:
    """Loads the scripts a run was made of, where they are not those that run.

    Raises:
      SettingError: they are not trusted, or not there.
    """
    place = directory if (directory / SCRIPTS).exists() else directory.parent
    for name, file in (_json(place, SCRIPTS) if (place / SCRIPTS).exists() else {}).items():
        if sources.file_of(name) == file:
            continue
        if not sources.trusted():
            raise SettingError(
                f"{directory} is a run of {file}, which is imported only if you say that you trust "
                "it: add --trust, or in Python rlws.load(..., trust=True)"
            )
        if not pathlib.Path(file).is_file():
            raise SettingError(f"{directory} is a run of {file}, which is no longer there")
        sources.load(file, name)


def configuration(directory: str | pathlib.Path) -> dict[str, Any]:
    """Returns the described settings of the run in a folder, without importing its classes.

    Raises:
      SettingError: there is no run in it.
    """
    return renewed(_json(pathlib.Path(directory), "config.json"))


def summary(directory: str | pathlib.Path) -> dict[str, Any]:
    """Returns what the run in a folder came to; empty while it has not ended."""
    path = pathlib.Path(directory)
    return _json(path, "summary.json") if (path / "summary.json").exists() else {}


def members(directory: str | pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of the runs below a folder: its own, or those of a sweep's members."""
    path = pathlib.Path(directory)
    table = path / "members.csv"
    if not table.exists():
        return [path]
    with open(table, encoding="utf-8", newline="") as file:
        return [path / row["member"] for row in csv.DictReader(file)]


def finished(
    directory: pathlib.Path, steps: int | None, episodes: int | None
) -> dict[str, Any] | None:
    """Returns the summary of the run in a folder if it has spent such a budget, else None."""
    found = summary(directory)
    if not found or "ended_by" in found:
        return None
    budget = {"steps": steps, "episodes": episodes}
    count = found.get("members", 1)
    spent = [found.get(k, 0) >= n * count for k, n in budget.items() if n is not None]
    return found if any(spent) else None


def check_same(described: dict[str, Any], directory: pathlib.Path) -> None:
    """Raises a SettingError that lists what differs, unless the run in the folder is the same."""
    if (known := _first(directory)) is not None:
        _compared(described, known, f"{directory} holds a run")


def check_made(described: dict[str, Any], found: "Checkpoint") -> list[str]:
    """Returns what is not as it was when a checkpoint was made: settings, versions, the machine.

    Raises:
      SettingError: its settings were others, and decide what comes next.
    """
    new = _compared(described, found.facts["experiment"], f"{found.path} is of a run")
    return [*new, *moved(found.facts)]


def moved(facts: Mapping[str, Any]) -> list[str]:
    """Returns in what versions and machine are not those that a checkpoint was made with."""
    here = {"versions": versions(), "machine": machine()}
    known = {name: facts[name] for name in here if name in facts}
    return [*differing(known, {name: here[name] for name in known}).values()]


def _compared(described, saved, whose):
    """Returns which settings the saved ones lack, all with their defaults, or the other way."""
    saved = complete = renewed(saved)
    with contextlib.suppress(SettingError):  # of a class that is no more: compared as it is
        complete = describe(revive(saved))
    several = described["sweep"] or described["trainer"].get("num_seeds", 1) > 1
    # Of several, those that ended before are no longer at hand.
    free = FREE - {"steps", "episodes"} if several else FREE
    fixed = lambda name: not free & {name, name.partition(".")[0]}
    if found := [text for name, text in differing(complete, described).items() if fixed(name)]:
        raise SettingError(
            f"{whose} of other settings (saved, now): {'; '.join(found)}; use "
            f"those, or make a variant: rlws fork{' of one of the runs in it' * bool(several)}"
        )
    old, new = flat(saved), flat(complete)
    gone = [
        f"{name}: {old[name]!r} was saved, and is no setting any more"
        for name in old
        if name not in new
    ]
    return gone + [
        f"{name}: {new[name]!r}, a setting that is newer" for name in new if name not in old
    ]


def _first(directory):
    """Returns the settings with which the run in a folder was begun, None where it hardly was."""
    if (directory / "config.json").stat().st_size:
        return configuration(directory)
    from rlws.numerics import checkpoint  # with all of JAX

    # Killed as soon as it had the folder; or the file was lost, and what was saved knows.
    found = checkpoint.newest(directory / "checkpoints", lambda warning: None)
    return None if found is None else renewed(found.facts["experiment"])


def _json(directory, name):
    path = directory / name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingError(
            f"{directory} must be the folder of a run, got one without {name}; results are in "
            "results/EXPERIMENT/RUN"
        ) from None
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} cannot be read: {error}; restore it") from None
    if not isinstance(found, dict):
        raise SettingError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def versions() -> dict[str, str]:
    """Returns the versions a run depends on bit for bit, of what is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """Returns what of this machine, and of how JAX is set, the bits of a run depend on."""
    import jax

    config: Any = jax.config
    cpus = pathlib.Path("/proc/cpuinfo")
    text = cpus.read_text(encoding="utf-8") if cpus.exists() else ""
    model = re.search(r"^model name\s*: (.*)", text, re.M)
    ours = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return {
        "devices": [device.device_kind for device in jax.devices()],
        "processor": model[1] if model else platform.machine(),
        "threads": len(ours(0)),  # among which sums are divided
        "x64": config.jax_enable_x64,
        "matmul_precision": config.jax_default_matmul_precision,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
