"""`rlws evaluate DIR --episodes 100`: how good the policy of a run is."""

import argparse
import contextlib
import dataclasses
import sys

import numpy as np

from rlws import environments
from rlws.analysis.statistics import interquartile_mean, interval
from rlws.commands.arguments import add_policy, check_arguments, policy_of
from rlws.environments import resolve
from rlws.environments.checks import check_same
from rlws.environments.info import parsed
from rlws.numerics.cache import enable_cache
from rlws.runs.experiment import Experiment
from rlws.runs.policy import Policy
from rlws.settings import INT, Seed, SettingError, whole
from rlws.tracking.files import write_json
from rlws.trainers.evaluation import evaluator, unfinished

FEW = 5  # episodes: of fewer, resampled, an interval of 95 % would hold the truth less often


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_policy(parser, episodes=100)
    parser.add_argument(
        "--seed", type=whole, help="of initial states; by default the run's, of --at best another"
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="as it acts in training, not as in evaluations"
    )
    parser.add_argument("--environment", help="another one, or with other settings")


def run(args: argparse.Namespace) -> None:
    """Prints mean, deviation and an interval; writes evaluation.json into the run's folder."""
    enable_cache()
    check_arguments(args, seed=Seed)
    policy = policy_of(args)
    experiment = policy.experiment
    if args.environment:
        experiment = dataclasses.replace(experiment, environment=args.environment)
        _check_environment(policy, args.environment)
        experiment = _told(experiment)
    seed = experiment.seed if args.seed is None else args.seed
    chosen = policy.checkpoint.facts.get("best") if args.at == "best" else None
    if chosen and args.seed is None:
        seed = (seed + 1) % (INT + 1)
    agent = policy.agent
    if args.stochastic:
        agent = dataclasses.replace(agent, evaluator=agent.actor)
    num_envs = experiment.evaluation.num_envs
    play = evaluator(agent, experiment.source, args.episodes, num_envs=num_envs)
    played, lengths, *info = play(policy.params, seed)
    returns = played[np.isfinite(played)]
    if cut := len(played) - len(returns):
        text = f"{cut} of {len(played)} episodes {unfinished(lengths[np.isnan(played)])}"
        print(f"warning: {text}", file=sys.stderr)
    if not len(returns):
        raise SettingError(f"an episode must end to have a return; {text}")
    middle, few = float(interquartile_mean(returns)), len(returns) < FEW
    low, high = interval(np.asarray(returns))
    told = dict(zip(parsed(experiment.info), info, strict=True))
    for name in [name for name, numbers in told.items() if np.isnan(numbers).all()]:
        print(f"warning: info {name}: it was said in no episode", file=sys.stderr)
        del told[name]
    step = policy.checkpoint.facts["step"]
    found = {
        "step": step,
        "environment": str(experiment.environment),
        "stochastic": args.stochastic,
        "episodes": len(returns),
        "unfinished": cut,
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "return_iqm": middle,
        "return_iqm_interval": None if few else [low, high],
        "return_min": float(np.min(returns)),
        "return_max": float(np.max(returns)),
        "length_mean": float(np.mean(lengths)),
        **{f"{name}_mean": float(np.nanmean(x)) for name, x in told.items()},
        "returns": np.asarray(returns).tolist(),
    }
    try:
        write_json(policy.checkpoint.path.parents[1] / "evaluation.json", found)
    except OSError as error:  # the folder may be somebody else's
        print(f"warning: evaluation.json was not written: {error}", file=sys.stderr)
    print(
        f"step {step:,}: return {found['return_mean']:.1f} ± {found['return_std']:.1f}, "
        f"IQM {middle:.1f}{'' if few else f' [{low:.1f}, {high:.1f}] (95 %)'}, over "
        f"{len(returns)} episode{'s' * (len(returns) > 1)} "
        f"({found['return_min']:.1f} to {found['return_max']:.1f}), "
        f"length {found['length_mean']:.0f}"
        + "".join(f", {name} {found[f'{name}_mean']:.3g}" for name in told)
    )
    if chosen:
        ((name, value),) = chosen.items()
        print(f"kept since {name} was {value:.4g} there, which is optimistic: it is of a choice")


def _told(experiment: Experiment) -> Experiment:
    """Returns it with what its environment, which may be another than the run's, says of info."""
    try:
        with contextlib.closing(resolve.host(experiment.source, 0, 0)):
            return experiment
    except SettingError as error:
        if not experiment.info:
            raise
        print(f"warning: {error}; evaluated without info", file=sys.stderr)
        return dataclasses.replace(experiment, info=())


def _check_environment(policy: Policy, source: object) -> None:
    """Raises a SettingError where the agent, as it was made, cannot act in an environment."""
    with contextlib.closing(resolve.host(source, 0, 0)) as one:  # type: ignore[arg-type]
        found = environments.spec(one)
    try:
        check_same(policy.spec, found, 0)
    except SettingError:
        raise SettingError(
            f"--environment must show and take what the run's does, {policy.spec.observations} and "
            f"{policy.spec.actions}, got {found.observations} and {found.actions}"
        ) from None
