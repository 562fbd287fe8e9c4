"""Frozen, checked settings: the base of every record a user configures.

Everything that describes a run (agent configurations, actors, learners, adders, environments,
trainers, experiments) is a frozen dataclass of settings; state lives elsewhere and is passed
around explicitly. `Settings` makes each subclass such a dataclass and checks its fields.
"""

import contextlib
import dataclasses
import decimal
import difflib
import functools
import inspect
import math
import numbers
import operator
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, dataclass_transform

from rlws import sources


class SettingError(ValueError):
    """Something is wrong with the input; one line names it, the rule, the value and the remedy."""

    status = 2  # of a process that ends because of it


INT = 2**31 - 1  # the largest of an int32
FUNCTION = "function:"  # how the name of one begins, in descriptions
FLOAT = 1e9  # more is no rate, cost, scale or time


class Range(NamedTuple):
    """An interval of numbers, closed unless marked open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False

    def holds(self, value: Any) -> bool:
        return (self.low < value if self.low_open else self.low <= value) and value <= self.high

    def broken_by(self, value: Any) -> str:
        """Returns what is said of a value that it does not hold."""
        low = f"{'greater than' if self.low_open else 'at least'} {self.low:.10g}"
        # What all whole numbers keep to goes without saying.
        said = self.high != math.inf and (self.high != INT or value > INT)
        return f"{low} and at most {self.high:.10g}" if said else low


Positive = Annotated[float, Range(0.0, low_open=True)]
NonNegative = Annotated[float, Range(0.0)]
Fraction = Annotated[float, Range(0.0, 1.0)]
PositiveInt = Annotated[int, Range(1, INT)]
NonNegativeInt = Annotated[int, Range(0, INT)]
Seed = NonNegativeInt


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Settings:
    """Base of all settings: subclasses become frozen dataclasses without a decorator.

    Numbers, strings and choices are checked against their annotations (`Positive`, `Fraction`,
    `Literal[...]`) when a record is made, so also by `dataclasses.replace`; those of NumPy become
    Python's. Tracers pass unchecked: a sweep makes configurations inside `jax.vmap`.

    Attributes:
      FORMER: settings that older versions had, by which their runs are read: what each is called
        now, or None for one that decides nothing any more. New settings need a default, no entry.

    Raises:
      SettingError: a value breaks its annotation.
    """

    FORMER: ClassVar[Mapping[str, str | None]] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        # Applied here, so that a subclass cannot forget it.
        dataclasses.dataclass(frozen=True)(cls)

    def __post_init__(self):
        for name, hint in _hints(_class(self)).items():
            given = getattr(self, name)
            if (value := _plain(given)) is not given:
                object.__setattr__(self, name, value)
            check(f"{type(self).__qualname__}.{name}", hint, value)


def _plain(value: Any) -> Any:
    """Returns the same number as Python's own, as JSON has it; all else as it is."""
    if type(value) is tuple:
        parts = tuple(map(_plain, value))
        return value if all(map(operator.is_, parts, value)) else parts
    if type(value) in (bool, int, float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    jax = sys.modules.get("jax")
    known = hasattr(value, "item") and not (jax and isinstance(value, jax.core.Tracer))
    return value.item() if known and getattr(value, "shape", None) == () else value


def _class(settings: Settings) -> Any:
    return type(settings)  # mypy takes the hash of the class for that of a record


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def check(name: str, hint: Any, value: Any) -> None:
    """Raises a SettingError, which calls it `name`, where a value breaks its annotation."""
    kind, *limits = typing.get_args(hint) if typing.get_origin(hint) is Annotated else [hint]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        if value is None and len(options) < len(typing.get_args(kind)):
            return
        if len(options) != 1:
            return
        return check(name, options[0], value)
    if typing.get_origin(kind) is tuple:
        part, *rest = typing.get_args(kind)
        if not isinstance(value, tuple):
            raise SettingError(f"{name} must be a tuple, got {value!r}")
        parts = [part] * len(value) if rest == [...] else [part, *rest]
        if len(value) != len(parts):
            raise SettingError(f"{name} must have {len(parts)} entries, got {value!r}")
        for i, (kind, x) in enumerate(zip(parts, value, strict=True)):
            check(f"{name}[{i}]", kind, x)
    elif typing.get_origin(kind) is Literal:
        choose(name, value, typing.get_args(kind))
    elif kind in (int, float):
        _check_number(name, kind, limits, value)
    elif kind in (bool, str) and not isinstance(value, kind):
        raise SettingError(f"{name} must be a {kind.__name__}, got {value!r}")
    elif isinstance(kind, type) and issubclass(kind, Settings) and not isinstance(value, kind):
        if _called(kind) and inspect.isfunction(value):
            return
        raise SettingError(f"{name} must be settings of kind {kind.__name__}, got {value!r}")


def _called(kind: type) -> bool:
    """Returns whether settings of this kind are called, so that a plain function does as well."""
    return any("__call__" in vars(cls) for cls in kind.__mro__)


def _check_number(name: str, kind: type, limits: list, value: Any) -> None:
    if hasattr(value, "aval"):  # a tracer: its value is not known here
        return
    number = isinstance(value, numbers.Integral if kind is int else numbers.Real)
    if not number or isinstance(value, bool):
        word = "a whole number" if kind is int else "a number"
        raise SettingError(f"{name} must be {word}, got {value!r}")
    for limit in limits:
        if isinstance(limit, Range) and not limit.holds(value):
            raise SettingError(f"{name} must be {limit.broken_by(value)}, got {value!r}")
    if not math.isfinite(value):
        raise SettingError(f"{name} must be finite, got {value!r}")
    most = FLOAT if kind is float else INT
    if abs(value) > most and all(limit.high == math.inf for limit in limits):
        raise SettingError(f"{name} must be at most {most:.10g} in size, got {value!r}")


POWERS = {"k": 3, "K": 3, "M": 6, "G": 9}


def whole(text: str) -> int:
    """Returns the whole number that somebody has typed: 200000, 200_000, 2e5, 200k, 2M.

    Raises:
      ValueError: it is none.
    """
    power = POWERS.get(text[-1:], 0)
    try:
        number = decimal.Decimal(text[:-1] if power else text).scaleb(power)
        if number.adjusted() > 30 or number != (found := int(number)):
            raise ValueError
    except (ValueError, ArithmeticError):
        raise ValueError(f"{text!r} is no whole number") from None
    return found


def describe(value: Any) -> Any:
    """Returns settings as JSON-able data: their fields, and their "type" as "module:Class"."""
    if isinstance(value, Settings):
        fields = {name: describe(getattr(value, name)) for name in _hints(_class(value))}
        module = sources.name_of(type(value).__module__)
        return {"type": f"{module}:{type(value).__qualname__}", **fields}
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if inspect.isfunction(value):
        return f"{FUNCTION}{sources.name_of(value.__module__)}:{value.__qualname__}"
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def shown(description: Any) -> str:
    """Returns a description as a person would write it: Catch(rows=10, columns=5)."""
    if isinstance(description, dict) and "type" in description:
        kind = str(description["type"]).rpartition(":")[2]
        fields = (f"{key}={shown(x)}" for key, x in description.items() if key != "type")
        return f"{kind}({', '.join(fields)})"
    return str(description)


def function(text: str) -> Any:
    """Returns the function that `describe` has described, or a user has named.

    Raises:
      SettingError: there is none by that name, or nothing may be imported by it.
    """
    found = _imported(text.removeprefix(FUNCTION), f"there is no function {text!r} here")
    if not callable(found):
        raise SettingError(
            f"there is no function {text!r} here; one that others are to find must be defined with "
            "def, at the top of a module, and its name be 'function:module:name'"
        )
    return found


def revive(description: Any, name: str = "settings") -> Any:
    """Returns the settings `describe` has described.

    Nothing is called but classes of settings, of modules that `sources.imported` allows.

    Raises:
      SettingError: it names a class that is not there, or none of settings, or a wrong value.
    """
    if isinstance(description, list):
        return tuple(revive(item, f"{name}[{i}]") for i, item in enumerate(description))
    if not isinstance(description, dict):
        return description
    if "type" not in description:
        return {key: revive(item, f"{name}.{key}") for key, item in description.items()}
    cls = _named(renewed(description)["type"], name)
    known = {field.name for field in dataclasses.fields(cls)}
    former = {key: key for key in description} | dict(cls.FORMER)
    given = {former[key]: value for key, value in description.items() if key != "type"}
    given.pop(None, None)
    for key in given.keys() - known:
        try:
            choose(f"{name}: setting of {cls.__name__}", key, known)
        except SettingError as error:
            raise SettingError(
                f"{error}; one of another version? {cls.__name__}.FORMER may say what became of it"
            ) from None
    needed = {field.name for field in dataclasses.fields(cls) if _default(field) is MISSING}
    if missing := sorted(needed - given.keys()):
        raise SettingError(f"{name}: {cls.__name__} needs {', '.join(missing)}, got none")
    found = {key: revive(value, f"{name}.{key}") for key, value in given.items()}
    for key, kind in _hints(cls).items():
        value = found.get(key)
        if isinstance(value, str) and value.startswith(FUNCTION) and isinstance(kind, type):
            found[key] = function(value) if issubclass(kind, Settings) else value
    return cls(**found)


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory


# Where classes of settings were, by which older runs know them.
_MOVED = {
    "rlws.experiment:Evaluation": "rlws.runs.experiment:Evaluation",
    "rlws.experiment:Experiment": "rlws.runs.experiment:Experiment",
    "rlws.keeper:Checkpoints": "rlws.runs.experiment:Checkpoints",
    "rlws.trainers.distributed:DistributedTrainer": (
        "rlws.trainers.distributed.trainer:DistributedTrainer"
    ),
}


def renewed(description: Any) -> Any:
    """Returns a description with the names that classes have now, whoever wrote it."""
    if isinstance(description, list):
        return [renewed(item) for item in description]
    if not isinstance(description, dict):
        return description
    found = {key: renewed(item) for key, item in description.items()}
    if isinstance(kind := found.get("type"), str):
        found["type"] = _MOVED.get(kind, kind)
    return found


def _named(text: str, name: str) -> Any:
    missing = f"{name}: there is no class of settings {text!r} here"
    found = _imported(str(text), missing)
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise SettingError(f"{missing}; install the package it is of, in the version of that time")
    return found


def _imported(text: str, missing: str) -> Any:
    """Returns what "module:name" names, None if that is not there.

    Raises:
      SettingError: nothing may be imported by that name; it begins with `missing`.
    """
    module, _, qualname = text.partition(":")
    try:
        found: Any = sources.imported(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except sources.Untrusted:
        raise SettingError(
            f"{missing}, of an installed package; --trust (in Python: trust=True) imports it from "
            "the current folder, if you know who wrote it"
        ) from None
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    return found


def choose(name: str, value: Any, options: Iterable[Any]) -> None:
    """Raises a SettingError with the nearest option unless `value` is one of `options`."""
    options = tuple(options)
    if value not in options:
        near = difflib.get_close_matches(str(value), map(str, options), 1, 0.5)
        known = ", ".join(map(str, options)) or "there are none yet"
        hint = f"did you mean {near[0]!r}?" if near else f"one of: {known}"
        raise SettingError(f"{name}: unknown value {value!r}; {hint}")


@contextlib.contextmanager
def importing(thing: str, extra: str) -> Iterator[None]:
    """Holds the imports of a `thing` whose packages are an `extra` of ours.

    Raises:
      SettingError: one of them is not installed.
    """
    try:
        yield
    except ImportError as error:
        remedy = f"pip install 'rlws[{extra}]' ({error})"
        raise SettingError(f"{thing} needs a package that is missing: {remedy}") from error


def change(config: Any, settings: dict[str, Any]) -> Any:
    """Returns the settings with some changed, given by dotted name.

    Raises:
      SettingError: there is no such setting.
    """
    for name, value in settings.items():
        head, _, rest = name.partition(".")
        fields = {f.name for f in dataclasses.fields(config)}
        if head not in fields or (rest and not isinstance(getattr(config, head), Settings)):
            near = difflib.get_close_matches(head, fields, 1)
            known = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(fields))}"
            raise SettingError(f"{type(config).__name__} has no setting {name!r}; {known}")
        new = change(getattr(config, head), {rest: value}) if rest else value
        config = dataclasses.replace(config, **{head: new})
    return config
