"""Errors for environment names that nothing knows, with the names most likely meant."""

import difflib
import re
from collections.abc import Iterable

from rlws.settings import SettingError

_VERSION = re.compile(r"-v(\d+)\Z")


def unknown(name: str, known: Iterable[str], otherwise: str) -> SettingError:
    """Returns the error for `name`; `otherwise` is the remedy where no `known` name is near."""
    near = nearest(name, known)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise
    return SettingError(f"environment: unknown name {name!r}; {remedy}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known names meant by `name`: its newest version, else its namesakes under other
    prefixes, else the nearest spelling, under the same prefix where it is one."""
    newest = {_base(candidate): candidate for candidate in newest_versions(known)}
    if _base(name) in newest:
        return [newest[_base(name)]]
    prefix, rest = _split(_base(name))
    namesakes = [newest[base] for base in newest if _split(base)[1] == rest]
    if namesakes:
        return sorted(namesakes)
    siblings = {_split(base)[1]: base for base in newest if _split(base)[0] == prefix}
    options = siblings or {_split(base)[1]: base for base in newest}
    return [newest[options[near]] for near in difflib.get_close_matches(rest, options, 1)]


def newest_versions(known: Iterable[str]) -> list[str]:
    """Returns of each known name the newest version, sorted."""
    return sorted({_base(name): name for name in sorted(known, key=_version)}.values())


def _base(name: str) -> str:
    return _VERSION.sub("", name)


def _split(name: str) -> tuple[str, str]:
    prefix, _, rest = name.rpartition(":")
    return prefix, rest


def _version(name: str) -> int:
    match = _VERSION.search(name)
    return int(match[1]) if match else 0
