"""Packages that only some sinks need."""

from contextlib import AbstractContextManager

from rlws.settings import importing


def extra(name: str) -> AbstractContextManager[None]:
    """Holds the imports of the sink whose packages are our extra `name`.

    Raises:
      SettingError: one of them is not installed.
    """
    return importing(f"tracking with {name!r}", name)
