"""What a command is about, by name: a module, or a class in one, or in a file."""

import inspect
import os
import pathlib
from types import ModuleType
from typing import Any

from rlws import sources
from rlws.agent import AgentConfig
from rlws.runs.parts import PARTS
from rlws.runs.sweep import parse_value
from rlws.settings import SettingError, change, choose


def agent_config(target: str, settings: list[str]) -> AgentConfig:
    """Returns the configuration a target names, with settings ("name=value") changed.

    A target is `module`, `module:Class`, `file.py` or `file.py:Class`, where the class is a
    configuration or stands beside the only one there is.

    Raises:
      SettingError: there is no such thing.
    """
    place, _, name = target.partition(":")
    found_module = load_module(place)
    found = getattr(found_module, name, None) if name else None
    if name and found is None:
        choose(target, name, [n for n, _ in inspect.getmembers(found_module, inspect.isclass)])
    if not (inspect.isclass(found) and issubclass(found, AgentConfig)):
        found = _only_config(found_module, place)
    try:
        config = found()
    except TypeError as error:
        raise SettingError(f"{target}: {error}; give every setting a default") from None
    changes = dict(_pair(config, text) for text in settings)
    return change(config, changes)


def load_module(place: str) -> ModuleType:
    """Returns a module by its name, or from its file; it may lie in the current folder."""
    sources.look_in(os.getcwd())
    if place.endswith(".py"):
        path = pathlib.Path(place)
        if not path.is_file():
            raise SettingError(f"{place}: there is no such file")
        try:
            return sources.load(path.stem, path)
        except sources.Untrusted as error:
            raise SettingError(f"{error}; rename it") from None
        except ImportError as error:
            raise SettingError(f"{place}: {error}") from None
    try:
        return sources.load(place)
    except (ImportError, TypeError, ValueError) as error:  # the last two of "." and ""
        raise SettingError(f"{place}: {error}; name a module such as agents_zoo.ppo") from None


def _only_config(module: ModuleType, place: str) -> type[AgentConfig]:
    own = [
        item
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, AgentConfig) and item.__module__ == module.__name__
    ]
    if len(own) != 1:
        names = ", ".join(item.__name__ for item in own) or "none"
        raise SettingError(
            f"{place} must have one subclass of AgentConfig, got {names}; name it: {place}:Config"
        )
    return own[0]


def _pair(config: AgentConfig, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingError(f"--set must be name=value, got {text!r}")
    name = name.replace("-", "_")
    if value in (kinds := PARTS.get(f"agent.{name}", {})):
        return name, kinds[value]()
    return name, parse_value(value, getattr(config, name.partition(".")[0], None))
