"""From an experiment to flags, and from flags back to an experiment."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tyro

from rlws.runs.differences import flat
from rlws.runs.experiment import Experiment
from rlws.runs.parts import BACKBONES, CRITICS, PARTS
from rlws.settings import SettingError, change, choose, describe, whole
from rlws.trainers import DeviceTrainer, DistributedTrainer, HostTrainer

TRAINERS = {"host": HostTrainer, "device": DeviceTrainer, "distributed": DistributedTrainer}


def parse(experiment: Experiment, args: Sequence[str]) -> Experiment:
    """Returns `experiment` with the changes the arguments ask for; prints help and exits on --help.

    Raises:
      SettingError: what the arguments ask for cannot be; one line says why.
    """
    args = list(args)
    for value in _take("--trainer", args):
        choose("--trainer", value, TRAINERS)
        if TRAINERS[value] is not type(experiment.trainer):
            trainer = TRAINERS[value](num_envs=experiment.trainer.num_envs)
            experiment = change(experiment, {"trainer": trainer})
    for name, kinds in PARTS.items():
        for value in _take(f"--{name}", args):
            choose(f"--{name}", value, kinds)
            experiment = change(experiment, {name: kinds[value]()})
    if not isinstance(experiment.environment, str):  # a name in the place of something else
        for value in _take("--environment", args):
            experiment = dataclasses.replace(experiment, environment=value)
    sweep, args = _together("--sweep", args)
    track, args = _together("--track", args)
    info, args = _together("--info", args)
    experiment = dataclasses.replace(
        experiment,
        sweep=(*experiment.sweep, *_lines(sweep)),
        track=(*experiment.track, *track),
    )
    return _parse(experiment, [*args, *["--info"] * bool(info), *filter(None, info)])


def _together(flag: str, args: list[str]) -> tuple[list[str], list[str]]:
    """Returns all values of a flag, however often it was given, and the other arguments.

    tyro takes several behind one flag, and of several flags the last.
    """
    found, others, ours = list[list[str]](), list[str](), False
    for arg in args:
        name, equals, value = arg.partition("=")
        if arg.startswith("--"):
            if ours := name == flag:
                found.append([value] if equals else [])
        elif ours:
            found[-1].append(arg)
        if not ours:
            others.append(arg)
    return [value for values in found for value in values or [""]], others


def _lines(texts: list[str]) -> Iterator[str]:
    """Yields what sweeps are: those that were given, and the lines of files of them."""
    for text in texts:
        if "=" in text or not pathlib.Path(text).is_file():
            yield text
            continue
        for line in pathlib.Path(text).read_text(encoding="utf-8").splitlines():
            if line := line.partition("#")[0].strip():
                yield line


def _take(flag: str, args: list[str]) -> list[str]:
    """Takes a flag out of the arguments; returns its values.

    These decide which other flags there are, or may be given more than once.
    """
    values = []
    while found := [i for i, arg in enumerate(args) if arg.partition("=")[0] == flag]:
        _, equals, value = args.pop(found[0]).partition("=")
        if not equals:
            value = args.pop(found[0]) if found[0] < len(args) else ""
        values.append(value)
    return values


def _parse(experiment, args):
    program = sys.modules["__main__"]
    spec = program.__spec__  # where it runs as a module
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                type(experiment),
                prog=f"python -m {spec.name}" if spec else f"python {sys.argv[0]}",
                description=f"{program.__doc__ or ''}\n\n"
                f"--trainer {{{','.join(TRAINERS)}}}, --agent.backbone {{{','.join(BACKBONES)}}} "
                f"and --agent.critic {{{','.join(CRITICS)}}}, where an agent has one, choose the "
                "kind; their options are below. --trust imports functions that are named from the "
                "current folder.",
                default=experiment,
                args=args,
                registry=_NUMBERS,
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise
        names = [x for x in flat(describe(experiment)) if x.rpartition(".")[2] != "type"]
        flags = [f"--{name.replace('_', '-')}" for name in ("trainer", *names)]
        raise SettingError(_one_line(boxed.getvalue(), flags)) from None


_NUMBERS = tyro.constructors.ConstructorRegistry()


@_NUMBERS.primitive_rule
def _whole(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Has whole numbers taken as people type them."""
    if info.type is not int:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda texts: whole(texts[0]),
        is_instance=lambda x: type(x) is int,
        str_from_instance=lambda x: [str(x)],
    )


@_NUMBERS.primitive_rule
def _none(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Has nothing written as `none`, as the names of parts are, or as in Python."""
    if info.type is not type(None):
        return None

    def made(texts):
        if texts[0].lower() != "none":
            raise ValueError(f"must be none, got {texts[0]!r}")

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        instance_from_str=made,
        is_instance=lambda x: x is None,
        str_from_instance=lambda x: ["none"],
    )


def _one_line(box: str, flags: Iterable[str]) -> str:
    """Returns what tyro says in a box (a message, and help under a rule) as our errors say it."""
    rows = [row.strip("│╭╮╰╯ ") for row in re.sub("\x1b.*?m", "", box).splitlines()]
    # Where a terminal is ASCII, the title stands over a rule, and not in it.
    rows = [row for row in rows[1:2] if row.strip("-")] + rows[2:]
    rule = lambda row: not row.strip("─-")
    message = " ".join(itertools.takewhile(lambda row: not rule(row), rows))
    usages = [
        row for row in rows if row.startswith("--") and not rule(row)
    ]  # in the help, such as "--seed INT"
    if found := re.match(r"Unrecognized options: ([^,=]+)", message):
        # By what is behind the last dot: what is before it makes any two alike.
        last = {flag.lstrip("-").rpartition(".")[2]: flag for flag in flags}
        near = difflib.get_close_matches(found[1].lstrip("-").rpartition(".")[2], last, 1)
        remedy = f"did you mean {last[near[0]]}?" if near else "--help lists all"
        return f"unknown option {found[1]}; {remedy}"
    if found := re.match(r"Missing value for argument '(.+?)'", message):
        return f"{found[1]} needs a value, got none; --help says which"
    if found := re.match(
        r"invalid choice '(.*)' for argument '(.+?)'. Expected one of (.*)", message
    ):
        choose(found[2], found[1], re.findall("'(.*?)'", found[3]))
    if found := re.match(r"Error parsing (--\S+): .*?'(.*)'", message):
        kind = usages[0].partition(" ")[2] if usages else "another kind of value"
        if "INT" in kind.split("|"):
            kind = kind.replace("INT", "a whole number, such as 200000, 200k or 2M")
            kind = kind.replace("|", " or ")
        return f"{found[1]} takes {kind}, got '{found[2]}'"
    if found := re.match(r"Error parsing (\S+): \w+\.(\w+) (must be .*)", message):
        owner = "" if found[1] == Experiment.__name__ else f"{found[1]}."
        return f"--{owner}{found[2].replace('_', '-')} {found[3]}"
    return message
