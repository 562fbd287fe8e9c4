"""`rlws watch DIR`: a film of the policy of a run."""

import argparse
import pathlib

from rlws.commands.arguments import add_policy, policy_of
from rlws.settings import SettingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    add_policy(parser, episodes=1)
    parser.add_argument("--output", type=pathlib.Path, help="by default DIR/videos/watch.mp4")
    parser.add_argument(
        "--numbers", action="store_true", help="return, values and probabilities beside the picture"
    )


def run(args: argparse.Namespace) -> None:
    """Writes the film and says where it is."""
    policy = policy_of(args)
    output = args.output or args.directory / "videos" / "watch.mp4"
    if output.suffix != ".mp4":
        raise SettingError(f"--output must end in .mp4, got {str(output)!r}")
    print(policy.film(output, args.episodes, args.numbers).path)
