"""Names of environments, taken apart, and what was most likely meant by one that nothing knows."""

import contextlib
import difflib
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rlws.settings import SettingError, whole

_VERSION = re.compile(r"-v(\d+)\Z")


class Name(NamedTuple):
    """A name taken apart, as gym:FrozenLake-v1,is_slippery=false+limit=50 is."""

    base: str  # gym:FrozenLake-v1
    settings: dict[str, Any]  # of the environment
    wrappers: tuple[tuple[str, Any], ...]  # around it, the inmost first; None: as by default


def parse(name: str) -> Name:
    """Returns the parts of a name: its settings follow commas, wrappers follow plus signs.

    Neither means anything to a shell. Values are JSON's or text; True, False and None will do.

    Raises:
      SettingError: a setting without a value, or given twice.
    """
    if "?" in name:
        meant = re.sub("[?&]", ",", name)
        raise SettingError(f"environment {name!r}: settings follow commas; write {meant}")
    environment, *around = name.split("+")
    base, *given = environment.split(",")
    settings = dict[str, Any]()
    for text in map(str.strip, given):
        key, equals, value = text.partition("=")
        if not (key and equals) or key in settings:
            raise SettingError(
                f"environment {name!r}: a setting must be name=value, each once, got {text!r}; "
                "write gym:FrozenLake-v1,is_slippery=false"
            )
        settings[key.strip().replace("-", "_")] = _value(value.strip())
    pairs = (text.partition("=") for text in around)
    return Name(base, settings, tuple((key, _value(x) if is_ else None) for key, is_, x in pairs))


def _value(text: str) -> Any:
    if "." not in text:
        with contextlib.suppress(ValueError):  # 1e6, 2_000, 500k
            return whole(text)
    with contextlib.suppress(ValueError):
        return json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    return text


_OURS = {"seed", "index", "render", "training", "self"}


def takes_any(parameters: Mapping[str, Any]) -> bool:
    """Returns whether what has these parameters takes others by name, too."""
    anything = inspect.Parameter.VAR_KEYWORD
    return any(getattr(x, "kind", None) is anything for x in parameters.values())


def check_settings(name: str, given: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raises a SettingError unless the environment called so has all settings that are `given`.

    What takes any by name has them all. Where parameters say by their defaults that they are true
    or false, values must be, too: any text would do for true, "no" as well.
    """
    if takes_any(parameters):
        return
    known = sorted(set(parameters) - _OURS)
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            has = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
            if key == "max_episode_steps":
                has = f"a wrapper limits it, too: {name}+limit=500, say"
            raise SettingError(f"environment {name!r} has no setting {key!r}; {has}")
        default = getattr(parameters[key], "default", None)
        if type(default) in (int, float) and isinstance(value, str | bool):
            raise SettingError(
                f"environment {name!r}: {key} must be a number, got {value!r}; by default it is "
                f"{default}"
            )
        if type(default) is bool and type(value) is not bool and value not in (0, 1):
            raise SettingError(
                f"environment {name!r}: {key} must be true or false, got {value!r}; write {key}="
                f"{str(not default).lower()}"
            )


def check_known(name: str, known: Iterable[str], otherwise: str) -> None:
    """Raises the SettingError that `unknown` returns, unless `name` is among the `known`."""
    if name not in known:
        raise unknown(name, known, otherwise)


def unknown(name: str, known: Iterable[str], otherwise: str) -> SettingError:
    """Returns the error for `name`; `otherwise` is the remedy where no `known` name is near."""
    near = nearest(name, known)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise
    return SettingError(f"environment: unknown name {name!r}; {remedy}")


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known names meant by `name`: its newest version, else its namesakes under other
    prefixes, else the nearest spelling, under the same prefix where it is one."""
    newest = {_parts(candidate)[:2]: candidate for candidate in newest_versions(known)}
    prefix, rest, _ = _parts(name)
    if (prefix, rest) in newest:
        return [newest[prefix, rest]]
    namesakes = [full for (_, other), full in newest.items() if other == rest]
    if namesakes:
        return sorted(namesakes)
    siblings = {other: full for (own, other), full in newest.items() if own == prefix}
    options = siblings or {other: full for (_, other), full in newest.items()}
    return [options[near] for near in difflib.get_close_matches(rest, options, 1)]


def newest_versions(known: Iterable[str]) -> list[str]:
    """Returns of each known name the newest version, sorted."""
    by_version = sorted(known, key=lambda name: _parts(name)[2])
    return sorted({_parts(name)[:2]: name for name in by_version}.values())


def _parts(name: str) -> tuple[str, str, int]:
    """Returns prefix, name and version: "gym", "CartPole", 1."""
    base, version, *_ = *_VERSION.split(name), "0"
    prefix, _, rest = base.rpartition(":")
    return prefix, rest, int(version)
