"""Packages that only some sinks need."""

import contextlib
from collections.abc import Iterator

from rlws.settings import missing


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Holds the imports of the sink whose packages are our extra `name`.

    Raises:
      SettingError: one of them is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise missing(f"tracking with {name!r}", error, name) from error
