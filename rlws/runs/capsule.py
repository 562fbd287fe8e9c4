"""Crash capsules: an update that came to NaN, kept to be taken again under a debugger."""

import pathlib
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from rlws.agent import Agent
from rlws.learner import LearnerState
from rlws.numerics import checkpoint, streams, trees
from rlws.numerics.streams import Stream
from rlws.runs.checkpointer import Checkpointer
from rlws.runs.experiment import Experiment
from rlws.runs.folders import defined
from rlws.runs.health import NonFiniteError, halted_text
from rlws.runs.policy import made
from rlws.settings import SettingError, describe, revive
from rlws.tracking.progress import short
from rlws.tracking.stderr import tell
from rlws.trainers import Member, Progress, Snapshot, core, initial, totals
from rlws.types import Key, Metrics, Trajectory

NAME = "capsule"


class Update(NamedTuple):
    """One update, ready to be taken."""

    agent: Agent
    learner: LearnerState
    batch: Trajectory
    key: Key

    def take(self) -> tuple[LearnerState, Metrics]:
        """Returns what it leads to."""
        return self.agent.learner.learn(self.learner, self.batch, self.key)


def keep(
    experiment: Experiment, runs: list[Member], checkpointer: Checkpointer, report: Progress
) -> NonFiniteError:
    """Writes the capsule of a run whose last report is that it halted; returns the error.

    What led to the update is worked out again from the newest checkpoint, so that a run that stays
    finite pays nothing for it.
    """
    try:
        said = _keep(experiment, runs, checkpointer, report)
    except Exception as error:  # whatever an environment made anew may raise: NaN is the news
        own = isinstance(error, SettingError | checkpoint.CheckpointError | checkpoint.StorageError)
        said = f"; no capsule: {f'{type(error).__name__}: ' * (not own)}{error}"
    return NonFiniteError(halted_text(report) + said)


def _keep(experiment, runs, checkpointer, report):
    found = checkpoint.newest(checkpointer.folder, lambda warning: None)
    if found is None:
        return "; there is no checkpoint to work it out again from"
    tell("working out what led to it")
    before = Snapshot(found.arrays, found.facts["trainer"])
    _, count = report.agent.adder.schedule(experiment.trainer.columns)
    control = dict(resume=before, max_updates=report.updates - count)
    for reports in experiment.train_all(runs, **control):
        again = reports[0]
        if again.halted:
            break
    arrays = again.snapshot().arrays
    facts = {"experiment": describe(experiment), "steps": again.steps, "updates": count}
    state = arrays["run"].state if "run" in arrays else arrays["state"]
    reason = write(checkpointer.directory, experiment, state, facts)
    folder = shlex.quote(short(checkpointer.directory / NAME))
    return (
        f": {reason or 'which it did not when worked out again'}; the state before it is kept, "
        f"take it again with: rlws replay {folder} --eager"
    )


def write(
    directory: pathlib.Path, experiment: Experiment, state: core.State, facts: dict[str, Any]
) -> str:
    """Writes a capsule into the folder of a run; returns what was not finite first.

    Args:
      directory: of the run; the capsule becomes its folder "capsule".
      experiment: that was run.
      state: of one agent, just before the update, or the several in a row, that came to NaN.
      facts: "experiment" (described), "steps" and "updates", how many are taken in a row.
    """
    folder = directory / NAME
    arrays = trees.flatten({"state": state})
    update = _update(experiment, facts["updates"], arrays)
    found = list(not_finite(update))
    if folder.exists():
        shutil.rmtree(folder)
    batch = {"batch": update.batch, "key": jax.random.key_data(update.key)}
    everything = {**arrays, **trees.flatten(batch)}
    checkpoint.save(folder, f"{facts['steps']:012d}", everything, {**facts, "not_finite": found})
    return found[0] if found else ""


def read(path: pathlib.Path) -> tuple[Update, dict[str, Any]]:
    """Returns the update of a capsule, and the facts.

    Raises:
      SettingError: there is no whole capsule.
    """
    found = checkpoint.newest(path, lambda text: None)
    if found is None:
        raise SettingError(f"{path} must be the capsule of a run, got none; see `rlws replay -h`")
    with defined(found.facts["experiment"]):
        experiment = revive(found.facts["experiment"], "config.json")
    return _update(experiment, found.facts["updates"], found.arrays), found.facts


def not_finite(update: Update) -> Iterator[str]:
    """Yields what is not finite: in the batch, the parameters, the loss and its gradients."""
    yield from _bad("batch", update.batch)
    yield from _bad("parameters", update.learner.params)
    learner, metrics = jax.jit(update.agent.learner.learn)(*update[1:])
    decisive = totals.decisive(metrics)
    yield from _bad("metrics", decisive)
    yield from _bad("metrics", {k: v for k, v in metrics.items() if k not in decisive})
    yield from _bad("updated parameters", learner.params)


def _bad(name: str, tree: Any) -> Iterator[str]:
    for path, x in trees.flatten(tree).items():
        if not jax.numpy.issubdtype(x.dtype, np.floating):
            continue
        wrong = ~np.isfinite(x.astype(np.float64))
        if wrong.any():
            where = f"{list(map(int, np.argwhere(wrong)[0]))} " if x.ndim else ""
            first = x[tuple(np.argwhere(wrong)[0])]
            yield f"{name}/{path}: {where}is {first}; {wrong.sum()} of {x.size} are not finite"


def _update(experiment: Experiment, updates: int, arrays: dict[str, np.ndarray]) -> Update:
    seed = experiment.seed
    agent, spec = made(experiment)
    like = jax.eval_shape(lambda: initial.init(agent, spec, seed, experiment.trainer.columns))
    state = trees.restore(like, arrays, "state")
    after = jax.tree.map(jax.numpy.asarray, state._replace(halted=np.bool_(False)))
    learn_key, learn = streams.key(seed, Stream.LEARN), jax.jit(partial(core.learn, agent))
    for _ in range(updates):
        before, after = after, learn(after, learn_key)
        if after.halted:
            break
    sample_key, own_key = jax.random.split(core.update_key(learn_key, before.learner))
    batch = agent.adder.sample(before.adder, sample_key)[1]
    return Update(agent, before.learner, batch, own_key)
