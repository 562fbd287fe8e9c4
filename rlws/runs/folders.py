"""Run folders: what a run left behind, read again."""

import contextlib
import csv
import json
import os
import pathlib
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from rlws import sources
from rlws.runs.differences import KEPT, differing, flat
from rlws.settings import FUNCTION, SettingError, describe, renewed, revive, whole

if TYPE_CHECKING:
    from rlws.numerics.checkpoint import Checkpoint
    from rlws.runs.experiment import Experiment

# What may change when a run goes on: how long, and what is kept of it.
STOPS = {"stop_at", "stop_times", "patience"}
FREE = KEPT | STOPS | {"steps", "episodes", "evaluation"}
PACKAGES = (
    *("rlws", "jax", "jaxlib", "dm-haiku", "optax", "rlax", "dm-env", "numpy"),
    *("gymnasium", "gymnax", "envpool", "dm_control", "mujoco", "ale-py", "opencv-python-headless"),
    *("bsuite", "pgx", "jumanji", "brax", "craftax"),
)


def experiment_of(directory: str | pathlib.Path) -> "Experiment":
    """Returns the experiment whose run the folder holds, as its config.json says.

    Raises:
      SettingError: there is no run in it, or its classes are not to be found from here.
    """
    from rlws.runs.experiment import Experiment  # with all of JAX

    described = configuration(directory)
    with defined(described):
        found = revive(described, "config.json")
    if not isinstance(found, Experiment):
        path = pathlib.Path(directory) / "config.json"
        raise SettingError(f"{path} must describe an Experiment, got {type(found).__name__}")
    return found


@contextlib.contextmanager
def defined(described: dict[str, Any]) -> Iterator[None]:
    """Within it, there is what the code of a described experiment defines, if it may be used.

    Raises:
      SettingError: something is not there, and may be in code that must not be used.
    """
    lacking = sources.use(_code(described))
    try:
        yield
        name = described.get("environment")
        if not isinstance(name, str):  # settings, revived with the others
            return
        from rlws.environments.names import parse  # with all of JAX

        name = parse(name).base
        prefix, _, module = name.rpartition(":")[0].partition(":")
        if prefix == "gym" and module and not sources.allowed(module):  # which it would import
            raise SettingError(f"environment {name} is of no installed package; add --trust")
        if lacking and not _is_known(name):
            raise SettingError(f"environment: unknown name {name!r}")
    except SettingError as error:
        raise SettingError("; ".join(filter(None, [str(error), lacking]))) from None


def _is_known(name):
    from rlws import environments  # with all of JAX

    return name.startswith(FUNCTION) or name in environments.available()


def _code(described):
    code = described.get("code")
    known = isinstance(code, list) and [type(part) for part in code] == [str, str]
    return tuple(code) if known else None


def saved(
    directory: str | pathlib.Path, warn: Callable[[str], None], at: int | str | None = None
) -> "Checkpoint":
    """Returns a checkpoint of the run in a folder.

    Args:
      directory: of the run.
      warn: is told of those that had to be passed over.
      at: the newest one not beyond this step, or "best"; by default the newest.

    Raises:
      SettingError: there is none, or none that is whole.
    """
    from rlws.numerics import checkpoint  # with all of JAX

    if at is not None and at != "best":
        try:
            at = whole(str(at))
        except ValueError:
            raise SettingError(f"at must be a step, such as 50k, or best, got {at!r}") from None
    folder = pathlib.Path(directory) / ("best" if at == "best" else "checkpoints")
    found = checkpoint.newest(folder, warn, None if isinstance(at, str) else at)
    if found is None:
        lacks, remedy = "none", "train longer, or pick a run"
        if at == "best":
            lacks, remedy = "no best", "train with --checkpoint.best evaluation_return_mean"
        raise SettingError(f"{directory} must hold a checkpoint, got {lacks}; {remedy}")
    return found


def check_folder(directory: pathlib.Path) -> None:
    """Raises a SettingError where there is something else in the place of a folder."""
    if directory.exists() and not directory.is_dir():
        raise SettingError(
            f"directory must be a folder, got {str(directory)!r}, which is none; choose another "
            "with --directory"
        )


def configuration(directory: str | pathlib.Path) -> dict[str, Any]:
    """Returns the described settings of the run in a folder, without importing its classes.

    Raises:
      SettingError: there is no run in it.
    """
    return renewed(read_json(pathlib.Path(directory), "config.json"))


def summary(directory: str | pathlib.Path) -> dict[str, Any]:
    """Returns what the run in a folder came to; empty while it has not ended."""
    path = pathlib.Path(directory)
    return read_json(path, "summary.json") if (path / "summary.json").exists() else {}


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
        _compared(described, known, f"{directory} holds a run", "use those")


def check_settings(described: dict[str, Any], found: "Checkpoint") -> list[str]:
    """Returns which settings are newer than a checkpoint, at their defaults, and which are gone.

    Raises:
      SettingError: what was saved is of other settings than config.json, or whoever resumes, has.
    """
    text = f"{found.path} is of a run", "put those back into config.json"
    return _compared(described, found.facts["experiment"], *text)


def check_budget(facts: Mapping[str, Any], steps: int | None, episodes: int | None) -> None:
    """Raises a SettingError unless a budget is that of a run which was saved, or not yet done."""
    recorders = facts["recorders"]
    for name, budget in (("steps", steps), ("episodes", episodes)):
        done = max(one["summary"].get(name, 0) for one in recorders)
        if name == "steps" and len(recorders) == 1:
            done = facts["step"]  # what is saved may be beyond its last row
        if budget not in (None, facts["experiment"].get(name)) and budget < done:
            raise SettingError(
                f"{name} must be at least the {done:,} that are done, got {budget}; for a shorter "
                "run begin another"
            )


def check_ahead(directory: pathlib.Path, names: list[str], facts: Mapping[str, Any]) -> None:
    """Raises a SettingError if one of several runs has gone on alone, with more to do than they.

    Args:
      directory: of all of them.
      names: of their folders in it.
      facts: saved of all, who would be taken back there.
    """
    from rlws.numerics import checkpoint  # with all of JAX

    if len(names) == 1:
        return
    given = lambda config: {name: config.get(name) for name in ("steps", "episodes", *STOPS)}
    for name, recorder in zip(names, facts["recorders"], strict=True):
        folder, at = directory / name, recorder["steps"] or 0
        ahead = [int(x) for x in checkpoint.names(folder / "checkpoints") if int(x) > at]
        if ahead and given(configuration(folder)) != given(configuration(directory)):
            raise SettingError(
                f"{name} has gone on alone to step {ahead[-1]:,}, and would be taken back to "
                f"{at:,}: resume it, and others, by themselves, or move its folder elsewhere"
            )


def moved(facts: Mapping[str, Any]) -> list[str]:
    """Returns in what versions and machine are not those that a checkpoint was made with."""
    here = {"versions": versions(), "machine": machine()}
    return [*differing({name: facts.get(name, {}) for name in here}, here).values()]


def _compared(described, saved, whose, remedy):
    """Returns which settings the saved ones lack, all with their defaults, or the other way."""
    saved = complete = renewed(saved)
    with contextlib.suppress(SettingError):  # of a class that is no more: compared as it is
        complete = describe(revive(saved))
    several = _several(described)
    if found := changed(complete, described):
        raise SettingError(
            f"{whose} of other settings (saved, now): {'; '.join(found)}; {remedy}, or make a "
            f"variant: rlws fork{' of one of the runs in it' * bool(several)}"
        )
    old, new = flat(saved), flat(complete)
    gone = [f"{name} was {old[name]!r} and is no more" for name in old if name not in new]
    added = [name for name in new if name not in old and not _free(name, FREE)]
    return gone + [f"{name} is new, and {new[name]!r}" for name in added]


def changed(saved: dict[str, Any], described: dict[str, Any]) -> list[str]:
    """Returns in what two configurations differ that decides what comes next."""
    # Of several, those that ended before are no longer at hand.
    free = FREE - STOPS - {"steps", "episodes"} if _several(described) else FREE
    found = differing(saved, described).items()
    return [text for name, text in found if not _free(name, free)]


def _free(name, free):
    return bool(free & {name, name.partition(".")[0]})


def _several(described):
    return described["sweep"] or described["trainer"].get("num_seeds", 1) > 1


def _first(directory):
    """Returns the settings with which the run in a folder was begun, None where it hardly was."""
    if (directory / "config.json").stat().st_size:
        return configuration(directory)
    from rlws.numerics import checkpoint  # with all of JAX

    # Killed as soon as it had the folder; or the file was lost, and what was saved knows.
    found = checkpoint.newest(directory / "checkpoints", lambda warning: None)
    return None if found is None else renewed(found.facts["experiment"])


def read_json(directory: pathlib.Path, name: str) -> dict[str, Any]:
    """Returns the JSON object in a file of a folder.

    Raises:
      SettingError: there is none.
    """
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
