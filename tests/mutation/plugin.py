"""Breaks one file while it is imported, as RLWS_BUG says; on disk nothing changes.

For pytest: `RLWS_BUG=name python -m pytest -p tests.mutation.plugin ...`. Whoever imports this
before rlws has the bug as well.
"""

import os
import pathlib
import sys
from importlib.machinery import SourceFileLoader

from tests.mutation.bug import Bug
from tests.mutation.bugs import BUGS


def install(bug: Bug) -> None:
    """Lets whoever imports the file of a bug from now on import it with the bug.

    Raises:
      RuntimeError: something of this repository is imported already.
    """
    if early := {"rlws", "agents_zoo"} & sys.modules.keys():
        raise RuntimeError(f"{bug.name}: {', '.join(early)} must not be imported before the plugin")
    broken = bug.apply(bug.path.read_text()).encode()
    get_data, path_stats = SourceFileLoader.get_data, SourceFileLoader.path_stats
    ours = lambda path: pathlib.Path(path) == bug.path

    class Broken:
        def get_data(self, path):
            return broken if ours(path) else get_data(self, path)

        def path_stats(self, path):
            if ours(path):
                raise OSError("compiled as it is, this file is not to be read, nor written")
            return path_stats(self, path)

    SourceFileLoader.get_data = Broken.get_data  # type: ignore[method-assign]
    SourceFileLoader.path_stats = Broken.path_stats  # type: ignore[method-assign]


if name := os.environ.get("RLWS_BUG"):
    install(next(bug for bug in BUGS if bug.name == name))
