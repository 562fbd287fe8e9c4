"""`rlws resume DIR`: go on with a run where its newest checkpoint leaves it."""

import argparse
import dataclasses

from rlws.commands.flags import parse
from rlws.runs import launch
from rlws.runs.folders import experiment_of
from rlws.settings import SettingError

PASSES_ON = True  # flags that are the experiment's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument("directory", help="results/EXPERIMENT/RUN")


def run(args: argparse.Namespace) -> None:
    """Goes on with the run; flags such as --steps may give it more to do."""
    experiment = experiment_of(args.directory)
    here = dataclasses.replace(experiment, directory=args.directory, resume=True)
    found = parse(here, args.rest)
    if (found.directory, found.resume) != (here.directory, True):
        raise SettingError("--directory and --resume must not be given: that is what DIR says")
    launch.run(found)
