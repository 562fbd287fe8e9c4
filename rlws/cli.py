"""From an experiment to a command line: every setting is a flag."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from rlws.experiment import Experiment
from rlws.settings import SettingError, choose
from rlws.trainers import DeviceTrainer, HostTrainer

TRAINERS = {"host": HostTrainer, "device": DeviceTrainer}


def main(experiment: Experiment, args: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs `experiment` with the changes the command line asks for; returns the summary.

    Exits with status 2 and one line on a wrong setting, 130 on Ctrl-C.
    """
    try:
        args = list(sys.argv[1:] if args is None else args)
        experiment, args = _choose_trainer(experiment, args)
        experiment = tyro.cli(type(experiment), default=experiment, args=args)
        return experiment.run()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _choose_trainer(experiment, args):
    """Takes `--trainer host|device` out of the arguments: another trainer has other flags."""
    for i, arg in enumerate(args):
        name, _, value = arg.partition("=")
        if name == "--trainer":
            value = value or next(iter(args[i + 1 :]), "")
            choose("--trainer", value, TRAINERS)
            trainer = TRAINERS[value](num_envs=experiment.trainer.num_envs)
            rest = args[:i] + args[i + 1 + ("=" not in arg) :]
            return dataclasses.replace(experiment, trainer=trainer), rest
    return experiment, args
