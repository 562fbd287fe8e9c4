"""What looking after a run's health costs: `python -m benchmarks.health`.

The same training four times, in alternation: without any of it; with the check that losses and
norms are finite; and with the vital signs of each batch; and with `Health`, which takes reports.
"""

import argparse
import contextlib
from unittest import mock

import jax.numpy as jnp

from agents_zoo import dqn, ppo
from benchmarks.measure import alternate, report, stepping
from rlws.numerics import vitals
from rlws.runs.health import Health
from rlws.trainers import HostTrainer, core

LEVELS = ("nothing", "finite check", "and vital signs", "and Health")
# Name: settings, environments, steps a segment. Reports are as often as in a run of 500,000 steps.
WORK = {
    "PPO": (ppo.Config(unroll_length=128, epochs=4, minibatches=4), 4, 30_000),
    "DQN, an update a step": (dqn.Config(), 1, 2_500),
}
REPORT_PERIOD = 2_500  # steps


def no_signs(metrics, weight):
    """Takes out of metrics what vital signs are made of, and makes none."""
    for name in {"value", "target", "action"} & metrics.keys():
        del metrics[name]
    return {}


def without(level):
    """Returns a context in which what is traced has no more than `level`."""
    stack = contextlib.ExitStack()
    patch = lambda *args: stack.enter_context(mock.patch.object(*args))
    if level == "nothing":
        patch(core, "_finite", lambda metrics: jnp.bool_(True))
    if level in LEVELS[:2]:
        patch(vitals, "signs", no_signs)
        patch(ppo, "explained_variance", lambda *_: jnp.float32(0))
    return stack


def training(level, config, num_envs, segment):
    """Yields the steps done, segment by segment, after the first update."""
    health = Health() if level == "and Health" else None
    trainer = HostTrainer(num_envs=num_envs)
    budget = {"steps": 10**9, "report_period": REPORT_PERIOD}
    with without(level):
        reports = trainer.train(config, "gym:CartPole-v1", **budget)
        progress = next(x for x in reports if x.updates)
    while True:
        yield progress.steps
        end = progress.steps + segment
        while progress.steps < end:
            progress = next(reports)
            if health is not None:
                row = {"steps": progress.steps, **progress.metrics, **health.measure(progress)}
                health.warnings(row)


def main() -> None:
    """Prints what each level costs on top of nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    for name, work in WORK.items():
        contestants = {level: stepping(training(level, *work)) for level in LEVELS}
        report(f"Host, {name}", alternate(contestants, args.rounds), "nothing")


if __name__ == "__main__":
    main()
