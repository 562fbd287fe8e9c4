"""`rlws replay DIR/capsule --eager`: take the update that came to NaN once more."""

import argparse
import pathlib
import pdb
import sys

import jax

from rlws.numerics.nans import first_infinity, first_nan
from rlws.runs import capsule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument("capsule", type=pathlib.Path, help="results/EXPERIMENT/RUN/capsule")
    parser.add_argument(
        "--eager",
        action="store_true",
        help="look for the operation that gives the first NaN; on a terminal then step through "
        "the update in pdb, uncompiled",
    )


def run(args: argparse.Namespace) -> int:
    """Prints what is not finite, and where it comes from; returns 5 if something is, else 0."""
    update, facts = capsule.read(args.capsule)
    found = list(capsule.not_finite(update))
    print(f"update {int(update.learner.updates) + 1:,}, at {facts['steps']:,} steps:")
    print("\n".join(f"  {line}" for line in found) or "  everything is finite")
    if args.eager:
        function = update.agent.learner.learn, update.learner, update.batch, update.key
        place, infinite = first_nan(*function), first_infinity(*function)
        if place:
            print("the first NaN comes from", place)
        if infinite and infinite != place:
            print("the first infinity comes from", infinite)
        if sys.stdin.isatty():
            with jax.disable_jit():
                pdb.runcall(update.take)
    return 5 if found else 0
