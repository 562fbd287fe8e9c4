"""`rlws fork DIR --at STEP --agent.learning-rate 1e-4 --name variant`: another future for a run."""

import argparse
import dataclasses
import pathlib
import shutil

import jax

from rlws.commands.arguments import add_checkpoint, checkpoint_of
from rlws.commands.flags import parse
from rlws.numerics import checkpoint, trees
from rlws.runs import launch
from rlws.runs.check import check_experiment
from rlws.runs.experiment import Experiment
from rlws.runs.folders import check_settings, experiment_of
from rlws.runs.policy import made
from rlws.runs.sweep import members
from rlws.settings import SettingError, describe
from rlws.tracking.files import write_json
from rlws.trainers import initial

PASSES_ON = True  # flags that are the experiment's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_checkpoint(parser)
    parser.add_argument("--name", default="fork", help="of the variant: RUN-NAME beside RUN")


def run(args: argparse.Namespace) -> None:
    """Makes the variant's folder from a checkpoint and goes on there.

    It draws the same random numbers as the run it comes from, so variants differ by their settings.
    """
    if not args.name or pathlib.Path(args.name).name != args.name:
        raise SettingError(f"--name must be that of a folder, got {args.name!r}")
    path = args.directory.resolve()
    parent = experiment_of(args.directory)
    found = checkpoint_of(args)
    if (count := found.facts.get("members", 1)) > 1:
        raise SettingError(f"{args.directory} holds {count} runs; name one of the folders in it")
    check_settings(describe(parent), found)  # what is new is said when it goes on
    directory = path.with_name(f"{path.name}-{args.name}")
    if directory.exists():
        raise SettingError(
            f"--name must be new, got {args.name!r}: {directory.name} exists already"
        )
    # The name stays: it names the folder of results, not the run.
    parent = dataclasses.replace(parent, directory=str(directory), resume=True)
    variant = parse(parent, args.rest)
    _check(parent, variant, found)
    print(_source(found, args.at))
    facts = {**found.facts, "experiment": describe(variant)}
    facts["forked_from"] = {"run": path.name, "step": found.facts["step"]}
    try:
        directory.mkdir(parents=True)
        checkpoint.save(directory / "checkpoints", found.path.name, found.arrays, facts)
        write_json(directory / "config.json", describe(variant))
        if (path / "metrics.csv").exists():
            shutil.copyfile(path / "metrics.csv", directory / "metrics.csv")
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    launch.run(variant)


def _source(found: checkpoint.Checkpoint, at: int | str | None) -> str:
    """Returns what to say of the checkpoint, which need not be at the step that was asked for."""
    text = f"forked from step {int(found.path.name):,}"
    if at == "best":
        return f"{text}, the best"
    if at is None or at == int(found.path.name):
        return text
    known = ", ".join(f"{int(name):,}" for name in checkpoint.names(found.path.parent))
    return f"{text} (asked for {at:,}; there are {known})"


def _check(parent: Experiment, variant: Experiment, found: checkpoint.Checkpoint) -> None:
    """Raises a SettingError unless the variant can go on from the checkpoint of its parent."""
    check_experiment(variant)
    for name in ("directory", "resume", "seed"):
        if getattr(variant, name) != getattr(parent, name):
            raise SettingError(
                f"--{name} must not be given: a fork has a folder beside its run's, "
                "and draws the same random numbers"
            )
    if type(variant.trainer) is not type(parent.trainer):
        raise SettingError("--trainer must be the run's: another keeps another state")
    if len(members(variant)) > 1:
        raise SettingError("a fork must be one run, got several; fork once for each value")
    agent, spec = made(variant)
    count = variant.trainer.columns
    like = jax.eval_shape(lambda: initial.init(agent, spec, variant.seed, count))
    place = "run/state" if trees.below(found.arrays, "run") else "state"
    trees.restore(like, found.arrays, place)
