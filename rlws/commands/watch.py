"""`rlws watch DIR`: a film of the policy of a run."""

import argparse
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from rlws.commands.arguments import add_policy, policy_of
from rlws.runs.policy import Policy
from rlws.settings import SettingError
from rlws.tracking import write_video
from rlws.trainers import evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_policy(parser, episodes=1)
    parser.add_argument("--output", type=pathlib.Path, help="by default DIR/videos/watch.mp4")


def run(args: argparse.Namespace) -> None:
    """Writes the film and says where it is."""
    policy = policy_of(args)
    output = args.output or args.directory / "videos" / "watch.mp4"
    if output.suffix != ".mp4":
        raise SettingError(f"--output must end in .mp4, got {str(output)!r}")
    films = (_film(policy, episode) for episode in range(args.episodes))
    first, rate = next(films)
    others = itertools.chain.from_iterable(frames for frames, _ in films)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        print(write_video(output, itertools.chain(first, others), rate))
    except OSError as error:
        raise SettingError(f"--output must be writable, got {str(output)!r}: {error}") from error


def _film(policy: Policy, episode: int) -> tuple[Iterator[np.ndarray], float]:
    environment, seed = policy.experiment.environment, policy.experiment.seed + episode
    frames, rate = evaluation.film(policy.agent, policy.params, environment, seed)
    try:
        first = next(frames)
    except Exception as error:  # whatever a renderer lacks
        raise SettingError(
            f"{environment} gives no pictures: {error}; `rlws evaluate` needs none"
        ) from error
    return itertools.chain([first], frames), rate
