"""`rlws inspect DIR`: what the newest checkpoint of a run holds, as JSON."""

import argparse
import json
import re

import numpy as np

from rlws.commands.arguments import add_checkpoint, checkpoint_of
from rlws.numerics import trees
from rlws.runs.folders import changed, configuration, moved
from rlws.settings import renewed

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
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> None:
    """Prints the JSON."""
    config = configuration(args.directory)
    found = checkpoint_of(args)
    facts = found.facts
    differs = [*changed(renewed(facts["experiment"]), config), *moved(facts)]
    result = {
        "step": facts["step"],
        "resume_class": "exact" if facts["exact"] else "bounded",
        "differs": differs,  # now from when it was saved; none: what the class says holds
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
        result[f"sha256_{name}"] = trees.digest(arrays)
    # Where an array does not hold the counters, the trainer's facts do.
    result["counters"] = {k: v for k, v in facts["trainer"].items() if k != "next_report"}
    print(json.dumps(result, indent=2))
