"""Whether the parts of an experiment fit each other, asked before anything is written."""

import contextlib
import dataclasses
import pathlib

import jax

from rlws import environments
from rlws.environments import resolve
from rlws.environments.adapters import is_adapted
from rlws.environments.repeats import repeats
from rlws.runs import sweep
from rlws.runs.experiment import Experiment
from rlws.runs.goals import check_goals
from rlws.settings import SettingError, describe
from rlws.tracking.video import check_frame
from rlws.trainers import DeviceTrainer
from rlws.trainers.deadline import watched
from rlws.trainers.memory import check_memory
from rlws.trainers.trainer import limits


def check_experiment(experiment: Experiment) -> bool:
    """Raises a SettingError unless environment, agent, trainer and budget fit each other.

    Returns:
      Whether the run can be resumed exactly; else unfinished episodes are lost.
    """
    limits(experiment.steps, experiment.episodes)
    _check_devices()
    parts = pathlib.PurePath(experiment.name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise SettingError(f"name must be that of a folder in results/, got {experiment.name!r}")
    if variants := sweep.variants(experiment):
        # Seeds change nothing of what is asked.
        seed = experiment.seed
        apart = {
            str(describe(one := dataclasses.replace(v.experiment, seed=seed))): one
            for v in variants
        }
        return all([check_experiment(one) for one in apart.values()])
    sweep.members(experiment)  # which checks them
    check_goals(experiment)
    trainer, source = experiment.trainer, experiment.source
    trainer.check(source)
    with watched(trainer.timeout) as asked, contextlib.ExitStack() as stack:
        asked.now = "environment 0, when it is made,", 0
        environment = resolve.host(source, experiment.seed, 0, experiment.video, training=True)
        stack.callback(environment.close)
        spec = environments.spec(environment)
        asked.now = None
        trainer.check_agent(experiment.agent.make(spec))
        own = resolve.device(source) if isinstance(trainer, DeviceTrainer) else None
        check_memory(experiment.agent, spec, trainer.columns, own)
        asked.now = "environment 0, when it is tried,", 1
        # What envpool says, it says in steps of its own.
        pooled = getattr(trainer, "vectorization", "") == "envpool"
        if experiment.info and not (is_adapted(environment) or pooled):
            environment.try_info()
        if experiment.video:
            _check_pictures(experiment, environment)
        return trainer.exact(environment) and repeats(environment)


def _check_devices():
    try:
        jax.devices()
    except RuntimeError as error:  # before anything that computes is blamed
        reason = str(error).partition("\n")[0]
        raise SettingError(
            f"JAX must find a device to compute on, got: {reason}; unset JAX_PLATFORMS, or name "
            "there what this machine has, such as cpu"
        ) from error


def _check_pictures(experiment, environment):
    try:
        environment.reset()
        check_frame(environment.render())
    except Exception as error:  # whatever a renderer lacks
        raise SettingError(
            f"--video needs pictures, and {experiment.environment} gives none: {error}; "
            "leave out --video"
        ) from error
