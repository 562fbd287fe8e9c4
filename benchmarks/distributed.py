"""What Ray costs and how far it carries: workers, blocks and parameters, on this machine.

    python -m benchmarks.distributed [scaling | overhead | startup | learning]

Needs the extra `ray`. `benchmarks/scaling.py` calculates with what is measured here.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import dm_env
import numpy as np
from dm_env import specs
from matplotlib.figure import Figure

from agents_zoo import a2c, impala
from rlws import networks
from rlws.analysis.statistics import interquartile_mean
from rlws.trainers import DistributedTrainer, HostTrainer, Trainer
from rlws.trainers.distributed import cluster

SECONDS = 0.005  # that a step of the slow environment takes


class Slow(dm_env.Environment):
    """Waits in each step, as a simulator elsewhere would: cores do not bound it."""

    max_episode_steps = 200

    def __init__(self, seed: int, index: int):
        self._steps = 0

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        self._steps = 0
        return dm_env.restart(np.zeros(4, np.float32))

    def step(self, action: int) -> dm_env.TimeStep:
        """Takes 5 ms."""
        time.sleep(SECONDS)
        self._steps += 1
        observation = np.full(4, self._steps / 200, np.float32)
        if self._steps == self.max_episode_steps:
            return dm_env.truncation(1.0, observation)
        return dm_env.transition(1.0, observation)

    def observation_spec(self) -> specs.Array:
        """Four numbers."""
        return specs.Array((4,), np.float32)

    def action_spec(self) -> specs.DiscreteArray:
        """Two actions."""
        return specs.DiscreteArray(2)


def scaling(counts: list[int], seconds: float) -> None:
    """Prints environment steps a second for each number of workers."""
    print(f"an environment that takes {1000 * SECONDS:g} ms a step; IMPALA, unrolls of 20")
    print(f"{'workers':>8}{'steps/s':>10}{'of linear':>11}{'lag':>7}")
    one = None
    for count in counts:
        rate, lag = rate_of(count, seconds)
        one = rate / count if one is None else one
        print(f"{count:>8}{rate:>10,.0f}{rate / count / one:>11.2f}{lag:>7.1f}", flush=True)


def rate_of(count: int, seconds: float) -> tuple[float, float]:
    """Returns steps a second, from when all workers play, and the mean lag in updates."""
    trainer = DistributedTrainer(num_actors=count, wait_for="any", lookahead=1)
    config = impala.Config(networks.MLP((64, 64)), unroll_length=20)
    period = 100 * count
    rows, lags = [], []
    reports = trainer.train(config, Slow, steps=10**9, report_period=period)
    for report in reports:
        playing = sum("per_second" in name for name in report.metrics)
        if playing == count:
            rows.append((time.perf_counter(), report.steps))
            lags.append(report.metrics["parameter_lag"])
        if rows and rows[-1][0] - rows[0][0] > seconds:
            break
    reports.close()
    (began, first), *_, (ended, last) = rows
    return (last - first) / (ended - began), statistics.mean(lags)


class _Other:
    """A process that takes and gives arrays, and does nothing with them."""

    def take(self, arrays: object) -> None:
        """Takes them."""

    def give(self, size: int) -> np.ndarray:
        """Returns so many bytes."""
        return np.zeros(size, np.uint8)


def overhead(rounds: int) -> None:
    """Prints what a call, a block and a broadcast cost beyond the playing itself."""
    with cluster.connected(None, 8, False) as ray:
        others = [ray.remote(num_cpus=1)(_Other).remote() for _ in range(8)]
        ray.get([other.take.remote(None) for other in others])

        def took(what) -> float:
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                what()
                times.append(time.perf_counter() - began)
            return 1000 * statistics.median(times)

        print(f"a call and its answer: {took(lambda: ray.get(others[0].take.remote(None))):.2f} ms")
        print(f"{'MB':>6}{'block here':>12}{'put':>8}{'to 1 worker':>13}{'to 8':>8}   (ms)")
        for size in (10**5, 10**6, 10**7):
            array = np.zeros(size, np.uint8)

            def broadcast(count, array=array):
                reference = ray.put([array])
                ray.get([other.take.remote(reference) for other in others[:count]])

            block = took(lambda size=size: ray.get(others[0].give.remote(size)))
            put = took(lambda array=array: ray.put([array]))
            one, eight = took(lambda: broadcast(1)), took(lambda: broadcast(8))
            print(f"{size / 1e6:>6}{block:>12.2f}{put:>8.2f}{one:>13.2f}{eight:>8.2f}", flush=True)


def startup() -> None:
    """Prints seconds from the start of the process to its first update, and of an import."""
    code = (
        "import time; began = time.perf_counter()\n"
        "from agents_zoo import impala\n"
        "from rlws.trainers import DistributedTrainer, HostTrainer\n"
        "imported = time.perf_counter()\n"
        "from rlws.numerics.cache import enable_cache; enable_cache()\n"
        "import sys\n"
        "trainer = eval(sys.argv[1])\n"
        "runs = trainer.train(impala.Config(), 'gym:CartPole-v1', steps=10**6, report_period=1)\n"
        "for r in runs:\n"
        "    if r.updates: break\n"
        "print(f'{imported - began:.2f} {time.perf_counter() - began:.2f}')\n"
        "import os; os._exit(0)\n"
    )
    print(f"{'':<34}{'imports':>8}{'first update':>14}   (s, medians of 3)")
    for name in ("HostTrainer(num_envs=2)", "DistributedTrainer(num_envs=1, num_actors=2)"):
        found = []
        for _ in range(3):
            words = [sys.executable, "-W", "ignore", "-c", code, name]
            out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            found.append([float(x) for x in out.split()])
        imported, first = (statistics.median(x) for x in zip(*found, strict=True))
        print(f"{name:<46}"[:44] + f"{imported:>8.2f}{first:>10.2f}", flush=True)


def learning(seeds: range, output: pathlib.Path) -> None:
    """Prints how well IMPALA learns with two workers and on a host, and A2C, at equal steps."""
    output.mkdir(parents=True, exist_ok=True)
    points = np.linspace(0.05, 1.0, 20)
    workers = DistributedTrainer(num_envs=8, num_actors=2, wait_for="any", lookahead=1)
    contestants: dict[str, tuple[Any, Trainer]] = {
        "2 workers, blocks as they come": (impala.Config(), workers),
        "HostTrainer, 16 environments": (impala.Config(), HostTrainer(num_envs=16)),
        "A2C, HostTrainer, 16 environments": (a2c.Config(), HostTrainer(num_envs=16)),
    }
    for environment, steps in (("gym:CartPole-v1", 300_000), ("jax:Catch", 100_000)):
        curves = {
            name: np.array([_curve(*who, environment, steps, seed, points) for seed in seeds])
            for name, who in contestants.items()
        }
        print(f"{environment}, {steps:,} steps, seeds {seeds[0]} to {seeds[-1]}: T at")
        print(f"{'':<34}{'10 %':>8}{'25 %':>8}{'50 %':>8}{'100 %':>8}{'worst':>8}")
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for name, scores in curves.items():
            means = [interquartile_mean(scores[:, i]) for i in (1, 4, 9, 19)]
            texts = [f"{x:>8.2f}" for x in (*means, scores[:, -1].min())]
            print(f"{name:<34}" + "".join(texts), flush=True)
            middle = interquartile_mean(scores, axis=0)
            (line,) = axes.plot(steps * points, middle, label=name)
            low, high = scores.min(axis=0), scores.max(axis=0)
            axes.fill_between(steps * points, low, high, color=line.get_color(), alpha=0.15)
        axes.set(xlabel="steps", ylabel="return of the last 100 episodes", title=environment)
        axes.legend(frameon=False)
        path = output / f"distributed_{environment.partition(':')[2]}.png"
        figure.savefig(path, dpi=120)
        print(f"figure: {path} (band: all seeds)")


def _curve(config, trainer, environment, steps, seed, points) -> list[float]:
    """Returns the mean return of the last 100 episodes at each point."""
    found, returns, left = [], list[float](), [*(points * steps)]
    for report in trainer.train(
        config, environment, seed=seed, steps=steps, report_period=steps // 100
    ):
        returns.extend(report.returns)
        while left and (report.steps >= left[0] or report.spent):
            found.append(float(np.mean(returns[-100:])) if returns else float("nan"))
            left.pop(0)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["scaling", "overhead", "startup"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=15.0, help="measured for each number")
    parser.add_argument("--seeds", type=int, default=5, help="of learning, from 1000 on")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("results/distributed"))
    parser.add_argument("--rounds", type=int, default=50, help="of each overhead")
    return parser.parse_args()


def main() -> None:
    """Runs what the command line names."""
    args = _arguments()
    if "scaling" in args.what:
        scaling(args.workers, args.seconds)
    if "overhead" in args.what:
        overhead(args.rounds)
    if "startup" in args.what:
        startup()
    if "learning" in args.what:
        learning(range(1000, 1000 + args.seeds), args.output)


if __name__ == "__main__":
    main()
