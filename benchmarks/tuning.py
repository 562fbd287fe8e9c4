"""Searches at equal wall time, or at equal steps: `rlws tune`, and Optuna with SB3's PPO.

    python -m benchmarks.tuning --trials 64 --steps 100000 --equal seconds

Ours runs first; then Optuna's TPE with a successive halving pruner, as in the zoo, has as many
seconds, or environment steps, in the environment of `benchmarks.peers`. Printed are trials a
minute, and the mean return of either winner on fresh seeds. Two lines of each are wanted at least:
call it again with --seed.
"""

import argparse
import csv
import dataclasses
import json
import pathlib
import subprocess
import tempfile
import time

from benchmarks.peers.contestant import ROOT
from benchmarks.peers.install import interpreter
from experiments.cartpole_ppo_device import experiment
from rlws.tune.study import Search, Study

SPACE = "agent.learning-rate=log:1e-5:1e-2", "agent.discount=0.9:0.999"


def main() -> None:
    """Prints a line for each of the two."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--equal", choices=("seconds", "steps"), default="seconds")
    parser.add_argument("--confirm", type=int, default=10, help="fresh seeds of either winner")
    args = parser.parse_args()
    evaluation = dataclasses.replace(experiment.evaluation, episodes=20)
    made = dataclasses.replace(
        experiment, steps=args.steps, seed=args.seed, evaluation=evaluation, quiet=True
    )
    search = Search(space=SPACE, trials=args.trials, method="asha", confirm=args.confirm)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(made, search, pathlib.Path(folder))
        began = time.monotonic()
        winner = study.run()
        seconds = time.monotonic() - began
        with (study.directory / "trials.csv").open() as file:
            steps = sum(int(row["steps"]) for row in csv.DictReader(file))
        place, _ = study.confirm(winner)
        ends = [json.loads(path.read_text()) for path in place.glob("*/summary.json")]
    mean = sum(end["evaluation_return_mean"] for end in ends) / len(ends)
    show("ours", args.trials, seconds, steps, winner.segments[-1][1], mean)
    python = interpreter("sb3")
    subprocess.run([python, "-m", "pip", "install", "-q", "optuna>=4.2,<6"], check=True)
    fresh = [args.seed + 1 + i for i in range(args.confirm)]
    most = [seconds, None] if args.equal == "seconds" else [None, steps]
    how = json.dumps([*most, args.steps, args.seed, fresh])
    command = [python, "-m", "benchmarks.peers.sb3_tuning", how]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found = ran.stdout
    show("Optuna, SB3", *json.loads(found.splitlines()[-1]))


def show(name: str, trials: int, seconds: float, steps: int, best: object, mean: float) -> None:
    """Prints what one of the two came to."""
    rate = 60 * trials / seconds
    took = f"{trials} trials, {steps:,} steps in {seconds:.0f} s, {rate:.3g} trials a minute"
    print(f"{name}: {took}; {best}: {mean:.4g}", flush=True)


if __name__ == "__main__":
    main()
