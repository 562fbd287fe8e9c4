"""`rlws tune NAME --space SETTING=log:1e-5:1e-2`: which settings are good, and whether it is so."""

import argparse
import dataclasses
import pathlib
from typing import get_args

from rlws.commands.flags import parse
from rlws.commands.run import named
from rlws.settings import SettingError, whole

PASSES_ON = True  # flags that are the experiment's
SMALL = 16  # trials; of more, not all are trained to the end unless it is asked for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    from rlws.tune.study import Method, Search

    default = {field.name: field.default for field in dataclasses.fields(Search)}
    parser.add_argument("experiment", help="a name in experiments/, a module or a file.py")
    parser.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="SETTING=log:LOW:HIGH",
        help="what is searched; also SETTING=LOW:HIGH and SETTING=VALUE,VALUE; repeat the flag",
    )
    parser.add_argument(
        "--method", choices=get_args(Method), help=f"sobol, of more than {SMALL} trials asha"
    )
    helps = {
        "trials": "how many",
        "seeds": "of each trial, whose score is their mean",
        "metric": "entry of summary.json of which more is better, or name:min",
        "parallel": "runs at once in one program; 0 is 8 on a CPU, else 64",
        "eta": "halving, asha: one in so many goes on",
        "rungs": "halving, asha: how often trials are compared",
        "rounds": "pbt: between which settings change",
        "confirm": "fresh seeds of winner and default",
    }
    for name, text in helps.items():
        kind = str if name == "metric" else whole
        parser.add_argument(f"--{name}", type=kind, help=f"{text}; {default[name]}")


def run(args: argparse.Namespace) -> None:
    """Searches, and compares what was found with the default on fresh seeds."""
    from rlws.tune.study import Search
    from rlws.tune.tune import tune

    if pathlib.Path(args.experiment, "study.json").exists():
        raise SettingError(
            f"EXPERIMENT must be what the study searches, got its folder; repeat the command that "
            f"began it with --directory {args.experiment} --resume"
        )
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Search)}
    given = {name: value for name, value in given.items() if value is not None}
    method = "sobol" if given.get("trials", Search.trials) <= SMALL else "asha"
    search = Search(**{"method": method} | given | {"space": tuple(args.space)})
    tune(parse(named(args.experiment), args.rest), search)
