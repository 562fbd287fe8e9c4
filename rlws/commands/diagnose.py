"""`rlws diagnose agents_zoo.ppo`: what is wrong with an algorithm."""

import argparse
import sys

from rich.console import Console

from rlws.commands.arguments import check_arguments
from rlws.commands.target import agent_config
from rlws.diagnose import diagnose, show
from rlws.diagnose.doctor import STEPS
from rlws.diagnose.probing import SEEDS
from rlws.numerics.cache import enable_cache
from rlws.settings import Fraction, PositiveInt, whole
from rlws.trainers.device import Seeds

WIDE = 160  # columns, where nobody sees a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument("target", help="agents_zoo.ppo, my_file.py or my_file.py:MyConfig")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="a setting"
    )
    parser.add_argument("--actions", choices=("discrete", "continuous"), default="")
    parser.add_argument(
        "--discount", type=float, help="gamma, if no setting is called discount or gamma"
    )
    parser.add_argument(
        "--steps", type=whole, default=STEPS, help="of each probe and seed, at most"
    )
    parser.add_argument("--seeds", type=whole, default=SEEDS)
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="CHECK", help="adder, P6, ..."
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; returns 0 for a healthy agent, 1 for another."""
    check_arguments(args, steps=PositiveInt, seeds=Seeds, discount=Fraction)
    enable_cache()
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    config = agent_config(args.target, args.set)
    with console.status("diagnose") as status:
        report = diagnose(
            config,
            actions=args.actions,
            discount=args.discount,
            steps=args.steps,
            seeds=args.seeds,
            only=args.only,
            keep=[text.partition("=")[0].partition(".")[0].replace("-", "_") for text in args.set],
            progress=status.update,
        )
    show(report, console)
    return 0 if report.healthy else 1
