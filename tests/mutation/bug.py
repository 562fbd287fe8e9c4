"""One bug: a few lines of one file, wrong in a way that others have got them wrong before."""

import pathlib
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]


class Bug(NamedTuple):
    """What to break, which test must notice, and what the doctor must say."""

    name: str
    file: str  # path in the repository
    old: str  # source that occurs once in it
    new: str  # what stands there instead
    agent: str  # for the doctor, with
    settings: tuple[str, ...]  # NAME=VALUE
    test: str  # the fast test that fails
    component: str | None  # how the name of a check of the doctor begins, that fails; None: it
    reason: str = ""  # cannot be expected to see this, because of this

    @property
    def path(self) -> pathlib.Path:
        """Where the file is."""
        return ROOT / self.file

    def apply(self, source: str) -> str:
        """Returns the source of the file with the bug in it.

        Raises:
          ValueError: `old` does not occur exactly once.
        """
        if (count := source.count(self.old)) != 1:
            raise ValueError(
                f"{self.name}: must be once in {self.file}, is {count} times: {self.old!r}"
            )
        return source.replace(self.old, self.new)
