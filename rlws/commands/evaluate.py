"""`rlws evaluate DIR --episodes 100`: how good the policy of a run is."""

import argparse
import sys

import numpy as np

from rlws.analysis.statistics import interquartile_mean, interval
from rlws.commands.arguments import add_policy, check_arguments, policy_of
from rlws.environments.info import parsed
from rlws.numerics.cache import enable_cache
from rlws.settings import Seed, SettingError, whole
from rlws.tracking.files import write_json
from rlws.trainers.evaluation import MAX_STEPS, evaluator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_policy(parser, episodes=100)
    parser.add_argument("--seed", type=whole, help="of initial states; by default the run's")


def run(args: argparse.Namespace) -> None:
    """Prints mean, deviation and an interval; writes evaluation.json into the run's folder."""
    enable_cache()
    check_arguments(args, seed=Seed)
    policy = policy_of(args)
    seed = policy.experiment.seed if args.seed is None else args.seed
    num_envs = policy.experiment.evaluation.num_envs
    environment = policy.experiment.source
    play = evaluator(policy.agent, environment, args.episodes, num_envs=num_envs)
    played, lengths, *info = play(policy.params, seed)
    returns = played[np.isfinite(played)]
    if cut := len(played) - len(returns):
        text = f"{cut} of {len(played)} episodes had not ended after {MAX_STEPS:,} steps"
        print(f"warning: {text} and have no return", file=sys.stderr)
    if not len(returns):
        raise SettingError(f"an episode must end to have a return; {text}; give a time limit")
    middle, (low, high) = float(interquartile_mean(returns)), interval(np.asarray(returns))
    told = dict(zip(parsed(policy.experiment.info), info, strict=True))
    step = policy.checkpoint.facts["step"]
    found = {
        "step": step,
        "episodes": len(returns),
        "unfinished": cut,
        "seed": seed,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "return_iqm": middle,
        "return_iqm_interval": [low, high],
        "return_min": float(np.min(returns)),
        "return_max": float(np.max(returns)),
        "length_mean": float(np.mean(lengths)),
        **{f"{name}_mean": float(np.nanmean(x)) for name, x in told.items()},
        "returns": np.asarray(returns).tolist(),
    }
    print(
        f"step {step:,}: return {found['return_mean']:.1f} ± {found['return_std']:.1f}, "
        f"IQM {middle:.1f} [{low:.1f}, {high:.1f}], over {len(returns)} episodes "
        f"({found['return_min']:.1f} to {found['return_max']:.1f}), "
        f"length {found['length_mean']:.0f}"
        + "".join(f", {name} {found[f'{name}_mean']:.3g}" for name in told)
    )
    try:
        write_json(policy.checkpoint.path.parents[1] / "evaluation.json", found)
    except OSError as error:  # the folder may be somebody else's
        print(f"warning: evaluation.json was not written: {error}", file=sys.stderr)
