"""What sets configurations apart, in few words."""

from collections.abc import Iterable, Sequence
from typing import Any

# Entries of a configuration that decide nothing about a run.
KEPT = {
    *("name", "directory", "quiet", "video", "resume", "checkpoint", "track", "on_track_failure"),
    *("code", "info", "processes"),
    "trainer.environment_timeout",
}
# With those that make it one seed of several.
NOT_SETTINGS = KEPT | {"seed", "sweep", "trainer.num_seeds"}


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Returns what sets each of some described configurations apart; "" where nothing does.

    Where parts are of different types, their types say it: what else differs follows from that.
    """
    parts: list[list[str]] = [[] for _ in configs]
    _tell_apart(configs, range(len(configs)), "", parts)
    return [" ".join(texts) for texts in parts]


def _tell_apart(
    values: Sequence[Any], indices: Iterable[int], name: str, parts: list[list[str]]
) -> None:
    """Appends to the parts of each index what sets its value of this name apart from the others."""
    indices = list(indices)
    known = [values[i] for i in indices]
    if name in NOT_SETTINGS or all(value == known[0] for value in known):
        return
    if not all(isinstance(value, dict) for value in known):
        for i in indices:
            parts[i].append(_pair(name, values[i]))
        return
    types = [value.get("type") for value in known]
    for kind in dict.fromkeys(types):
        same = [i for i in indices if values[i].get("type") == kind]
        if len(same) < len(indices):
            for i in same:
                parts[i].append(_pair(name, values[i]))
        for key in dict.fromkeys(key for i in same for key in values[i]):
            inner = [value.get(key) if isinstance(value, dict) else None for value in values]
            _tell_apart(inner, same, f"{name}.{key}".lstrip("."), parts)


def _pair(name: str, value: Any) -> str:
    text = shown(value)
    return text if name in ("agent", "environment") else f"{name.removeprefix('agent.')}={text}"


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, str]:
    """Returns what differs between two described configurations, and how, by dotted name.

    Where parts are of different types, only that is said.
    """
    pair = flat(one), flat(other)
    names = dict.fromkeys([*pair[0], *pair[1]])
    values = {name: (pair[0].get(name), pair[1].get(name)) for name in names}
    found = {name: f"{name}: {a!r}, {b!r}" for name, (a, b) in values.items() if a != b}
    parts = [name.removesuffix("type") for name in found if name.endswith(".type")]
    inner = {name for name in found for p in parts if name.startswith(p) and name != f"{p}type"}
    return {name: text for name, text in found.items() if name not in inner}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """Returns all of a described configuration that decides a run but its seed, by dotted name."""
    known = {name: value for name, value in config.items() if name not in NOT_SETTINGS}
    return {name: value for name, value in flat(known).items() if name not in NOT_SETTINGS}


def shown(value: Any) -> str:
    """Returns the value of a setting in few characters."""
    if isinstance(value, dict):
        return shown_type(str(value.get("type", "{}")))
    if isinstance(value, list):
        return ",".join(map(shown, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value) or "none"


def shown_type(text: str) -> str:
    """Returns the class in "module:Class"; the module if the class is just called Config."""
    module, _, name = text.partition(":")
    return name if name not in ("", "Config") else module.rpartition(".")[2]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Returns described settings by dotted name; lists of plain values stay whole."""
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = enumerate(value)
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= flat(item, f"{name}.{key}".lstrip("."))
    return found
