"""Errors for environment names that nothing knows, with the names most likely meant."""

import difflib
import re
from collections.abc import Iterable

from rlws.settings import SettingError

_VERSION = re.compile(r"(.*?)(?:-v(\d+))?")


def unknown(name: str, known: Iterable[str], otherwise: str) -> SettingError:
    """Returns the error for `name`; `otherwise` is the remedy where no `known` name is near."""
    near = nearest(name, known)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise
    return SettingError(f"environment: unknown name {name!r}; {remedy}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Returns the names `name` stands for: another version of it, it with a prefix, or a near one."""
    newest = {}
    for candidate in sorted(known, key=_version):
        newest[_base(candidate)] = candidate
    if _base(name) in newest:
        return [newest[_base(name)]]
    prefixed = [full for base, full in newest.items() if base.partition(":")[2] == _base(name)]
    if prefixed:
        return sorted(prefixed)
    return [newest[base] for base in difflib.get_close_matches(_base(name), newest, 1)]


def _base(name: str) -> str:
    return _VERSION.fullmatch(name)[1]


def _version(name: str) -> int:
    return int(_VERSION.fullmatch(name)[2] or 0)
