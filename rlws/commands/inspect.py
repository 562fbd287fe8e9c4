"""`rlws inspect DIR`: what the newest checkpoint of a run holds, as JSON."""

import argparse
import json
import pathlib
import re
import sys

import numpy as np

from rlws.numerics import checkpoint
from rlws.runs.folders import configuration
from rlws.settings import SettingError

# By path of the array. What is drawn depends on these counters, the seed and nothing else.
PARTS = {
    "parameters": r"^(run/)?state/learner/(params|extra)",
    "optimiser": r"^(run/)?state/learner/opt_state",
    "replay": r"^(run/)?state/adder",
    "environments": r"^(environments|actor|rows|run/(environment|timestep|actor|episode))",
    "random_state": r"^(run/(keys|step)|(run/)?state/learner/updates)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument("directory", type=pathlib.Path, help="results/EXPERIMENT/RUN")
    parser.add_argument("--at", type=int, metavar="STEP", help="newest checkpoint up to this step")


def run(args: argparse.Namespace) -> int:
    """Prints the JSON."""
    config = configuration(args.directory)
    warn = lambda text: print("warning:", text, file=sys.stderr)
    found = checkpoint.newest(args.directory / "checkpoints", warn, args.at)
    if found is None:
        raise SettingError(f"{args.directory} must hold a checkpoint, got none; train it first")
    facts = found.facts
    result = {
        "step": facts["step"],
        "resume_class": "exact" if facts["exact"] else "bounded",
        "experiment": config.get("name"),
        "seed": config.get("seed"),
        "checkpoint": found.path.name,
        "forked_from": facts.get("forked_from"),
        "bytes": sum(x.nbytes for x in found.arrays.values()),
        "versions": facts["versions"],
    }
    for name, pattern in PARTS.items():
        arrays = {k: x for k, x in found.arrays.items() if re.search(pattern, k)}
        if name == "random_state":  # on a host, no array holds keys
            arrays["seed"] = np.array(facts["experiment"]["seed"])
        result[f"sha256_{name}"] = checkpoint.digest(arrays)
    # Where an array does not hold the counters, the trainer's facts do.
    counters = {k: v for k, v in facts["trainer"].items() if k != "next_report"}
    result["counters"] = counters
    print(json.dumps(result, indent=2))
    return 0
