"""`rlws run cartpole_ppo --seed 3`: an experiment by name."""

import argparse
import dataclasses

from rlws import sources
from rlws.commands import catalogue
from rlws.commands.flags import parse
from rlws.commands.target import load_module
from rlws.runs import launch
from rlws.runs.experiment import Experiment
from rlws.settings import SettingError, choose

PASSES_ON = True  # flags that are the experiment's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument("experiment", help="a name in experiments/, a module or a file.py")


def run(args: argparse.Namespace) -> None:
    """Runs the experiment with the flags that are left."""
    launch.run(parse(named(args.experiment), args.rest))


def named(name: str) -> Experiment:
    """Returns the experiment of a module in experiments/, of another, or of a file.

    Raises:
      SettingError: there is none.
    """
    if "." not in name:
        choose("EXPERIMENT", name, catalogue.modules("experiments"))
    found = load_module(name if "." in name else f"experiments.{name}")
    experiment = getattr(found, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise SettingError(f"{name} must hold an Experiment called experiment; see `rlws list`")
    return dataclasses.replace(experiment, code=sources.code_of(found))
