"""Arguments that several verbs take, and what they stand for."""

import argparse
import contextlib
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from rlws.runs.folders import saved
from rlws.settings import Range, SettingError, check, whole
from rlws.tracking.files import replacing
from rlws.tracking.stderr import warn

if TYPE_CHECKING:
    from rlws.numerics.checkpoint import Checkpoint
    from rlws.runs.policy import Policy


def add_directories(parser: argparse.ArgumentParser) -> None:
    """Adds the folders whose runs a verb reads; see `analysis.results.gather`."""
    parser.add_argument(
        "directories", nargs="+", metavar="DIR", help="of a run, of a sweep, or of such folders"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the folder of a run, and which checkpoint of it."""
    parser.add_argument("directory", type=pathlib.Path, help="results/EXPERIMENT/RUN")
    parser.add_argument(
        "--at", type=_step, metavar="STEP", help="newest checkpoint up to it, or: best"
    )


def _step(text: str) -> int | str:
    try:
        return whole(text)
    except ValueError:
        return text  # which `saved` looks at


def checkpoint_of(args: argparse.Namespace) -> "Checkpoint":
    """Returns the checkpoint that is asked for.

    Raises:
      SettingError: there is none, or none that is whole.
    """
    return saved(args.directory, warn, args.at)


def add_policy(parser: argparse.ArgumentParser, episodes: int) -> None:
    """Adds a checkpoint, and how many episodes its policy plays."""
    add_checkpoint(parser)
    parser.add_argument("--episodes", type=whole, default=episodes)


def policy_of(args: argparse.Namespace) -> "Policy":
    """Returns the policy that is asked for.

    Raises:
      SettingError: there is none, or it shall play no episode.
    """
    from rlws.runs.experiment import EPISODES
    from rlws.runs.policy import load  # with all of JAX

    check_arguments(args, episodes=Annotated[int, Range(1, EPISODES)])
    return load(args.directory, args.at)


def check_arguments(args: argparse.Namespace, **hints: Any) -> None:
    """Raises a SettingError where an argument that was given breaks its annotation."""
    for name, hint in hints.items():
        if (value := getattr(args, name)) is not None:
            check(f"--{name}", hint, value)


@contextlib.contextmanager
def writing(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path that takes the place of `--output` at the end.

    Raises:
      SettingError: the file cannot be written.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            yield temporary
    except OSError as error:
        raise SettingError(
            f"--output must be writable, got {str(output)!r}: {error.strerror}; choose another"
        ) from None
