"""Sweeps: several runs of one experiment, which differ in seeds and settings."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from rlws import sources
from rlws.runs.differences import shown
from rlws.runs.experiment import Experiment
from rlws.runs.parts import PARTS
from rlws.settings import Seed, SettingError, change, check, choose, describe, whole
from rlws.trainers import DeviceTrainer, Member

MOST = 10_000  # runs
LONGEST = 200  # bytes of a folder's name


def members(experiment: Experiment) -> list[Member]:
    """Returns the runs of an experiment: all combinations of its sweeps, for each of its seeds.

    Raises:
      SettingError: a sweep is not of the form agent.setting=value,value,... or names no setting.
    """
    _check_names(experiment)
    choices = [parse(text, experiment) for text in experiment.sweep]
    count = getattr(experiment.trainer, "num_seeds", 1)
    _check_count(count * math.prod(map(len, choices)))
    check("seed of the last", Seed, experiment.seed + count - 1)
    found = []
    for combination in itertools.product(*choices):
        settings = {name.removeprefix("agent."): value for name, value in combination}
        change(experiment.agent, settings)  # checks names and ranges
        found += [Member(experiment.seed + i, settings) for i in range(count)]
    return found


class Variant(NamedTuple):
    """One of several experiments that are run by themselves, one after the other."""

    label: str
    settings: dict[str, str]  # what sets it apart, as it was written
    experiment: Experiment


def variants(experiment: Experiment) -> list[Variant]:
    """Returns the experiments of a sweep over more than settings of one agent; none of another.

    Settings of an agent are left to each of them where a device trains their values together.

    Raises:
      SettingError: as of `members`.
    """
    _check_names(experiment)
    texts = sorted(experiment.sweep, key=lambda text: not text.startswith("agent="))
    apart = [text for text in texts if not text.startswith("agent.")]
    if not apart:
        return []
    if not isinstance(experiment.trainer, DeviceTrainer):
        apart = texts
    inner = tuple(text for text in experiment.sweep if text not in apart)
    begun: dict[str, str] = {}
    found = [(begun, dataclasses.replace(experiment, sweep=()))]
    for text in apart:  # one by one, as settings are those of the agent chosen before
        _check_count(len(found) * len(parse(text, found[0][1])))
        found = [
            (
                {**told, name.removeprefix("agent."): shown(describe(value))},
                change(one, {name: value}),
            )
            for told, one in found
            for name, value in parse(text, one)
        ]
    labels = [_short("_".join(f"{k}={v}" for k, v in told.items())) for told, _ in found]
    _check_once("sweep", labels, ", ".join(labels))
    count = getattr(experiment.trainer, "num_seeds", 1)
    others = [" ".join(f"{k}={v}" for k, v in told.items() if k != "seed") for told, _ in found]
    pairs = zip(others, (one.seed for _, one in found), strict=True)
    runs = [f"{other} seed={seed + i}".strip() for other, seed in pairs for i in range(count)]
    _check_once("sweep", runs, f"{' '.join(texts)} with {count} seeds each")
    return [
        Variant(label, told, dataclasses.replace(one, sweep=inner))
        for label, (told, one) in zip(labels, found, strict=True)
    ]


def parse(text: str, experiment: Experiment, what: str = "sweep") -> list[tuple[str, Any]]:
    """Returns the name of a setting with each of its values in a sweep, or `what` else it is.

    Raises:
      SettingError: it is not of the form setting=value,value,... or names no setting; or a value
        is there twice.
    """
    found = _values(text, experiment, what)
    _check_once(what, [shown(describe(value)) for _, value in found], text)
    return found


def _check_once(what: str, values: list[str], got: Any) -> None:
    for value, count in collections.Counter(values).most_common(1):
        if count > 1:
            raise SettingError(f"{what} must have {value} once, got {got!r}")


def _check_count(runs: int) -> None:
    if runs > MOST:
        raise SettingError(
            f"a sweep must be of {MOST:,} runs at most, got {runs:,}; leave some out"
        )


def _check_names(experiment: Experiment) -> None:
    """Checks that each setting is swept once: of two a run would have the last."""
    names = [text.partition("=")[0].strip().replace("-", "_") for text in experiment.sweep]
    _check_once("sweep", names, " ".join(experiment.sweep))


def _values(text: str, experiment: Experiment, what: str) -> list[tuple[str, Any]]:
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not name or not equals or not values:
        raise SettingError(
            f"{what} must be of the form setting=value,value, got {text!r}; for example "
            "agent.learning-rate=1e-4,3e-4 or seed=0..4, or a file of such lines that is there"
        )
    now: Any = experiment
    for part in name.split("."):
        now = getattr(now, part, None)
    change(experiment, {name: now})  # checks that there is such a setting
    if name == "environment":  # whose settings follow commas, too
        return [(name, value) for value in re.split(r",(?=\w+:)", values)]
    if name == "agent":
        return [(name, _agent(value)) for value in values.split(",")]
    values = ",".join(_spanned(part, f"{what}: {name}") for part in values.split(","))
    if kinds := PARTS.get(name):
        for value in values.split(","):
            choose(f"{what}: {name}", value, kinds)
        return [(name, kinds[value]()) for value in values.split(",")]
    if isinstance(now, tuple):
        parts = [re.split(r"[x ]+", value) for value in values.split(",")]
        return [(name, tuple(parse_value(part, (*now, 0)[0]) for part in each)) for each in parts]
    return [(name, parse_value(value, now)) for value in values.split(",")]


def _spanned(text: str, name: str) -> str:
    """Returns whole numbers from one to another, low..high, as 0,1,2; other text as it is."""
    span = re.fullmatch(r"(\d+)(\.\.|-)(\d+)", text.strip())
    if not span:
        return text
    low, high = sorted((int(span[1]), int(span[3])))
    if span[2] == "-" or low != int(span[1]):
        raise SettingError(
            f"{name}: numbers from one to another must be low..high, got {text!r}; write "
            f"{low}..{high}"
        )
    _check_count(high - low + 1)
    return ",".join(map(str, range(low, high + 1)))


def _agent(name: str) -> Any:
    """Returns the agent's settings of a module, of agents_zoo unless it says another."""
    module = name if "." in name else f"agents_zoo.{name}"
    try:
        return sources.load(module).Config()
    except (ImportError, AttributeError, TypeError) as error:
        raise SettingError(
            f"sweep: agent must be a module with a Config, such as ppo, got {name!r}: {error}"
        ) from None


def parse_value(text: str, now: Any) -> Any:
    """Returns the value meant by `text` for a setting that is `now` another."""
    if isinstance(now, str):
        return text
    if now is None or type(now) is int:
        with contextlib.suppress(ValueError):
            return whole(text.strip())
    try:
        value = json.loads(text.strip().lower())
    except ValueError:
        return text
    return float(value) if isinstance(now, float) and not isinstance(value, bool) else value


def alone(experiment: Experiment, runs: list[Member]) -> Iterator[Experiment]:
    """Yields each member as what it is recorded as: a run by itself would give the same."""
    trainer = experiment.trainer
    if isinstance(trainer, DeviceTrainer):
        trainer = dataclasses.replace(trainer, num_seeds=1)
    for seed, settings in runs:
        agent = change(experiment.agent, settings)
        yield dataclasses.replace(experiment, sweep=(), trainer=trainer, agent=agent, seed=seed)


def label(i: int, runs: list[Member]) -> str:
    """Returns the name of the folder of a member."""
    seed, settings = runs[i]
    told = (f"{k}={shown(describe(v))}" for k, v in settings.items())
    parts = [f"{i:0{len(str(len(runs) - 1))}d}", *told]
    return _short("_".join([*parts, f"seed{seed}"]))


def _short(text: str) -> str:
    """Returns the name of a folder, which must not be too long for the disk."""
    text = text.replace("/", "-")
    if len(text.encode()) <= LONGEST:
        return text
    return f"{text[: LONGEST // 4]}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
