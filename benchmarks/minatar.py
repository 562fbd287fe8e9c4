"""PPO on MinAtar against one written by hand: `python -m benchmarks.minatar`.

The same network, settings and steps, seeds in alternation: what ours (`agents_zoo/ppo.py`, in
`DeviceTrainer`) and the reference (`reference_ppo.py`) reach, and how fast. Beside them ours with
the settings that it has everywhere else. A score is the mean return of episodes by the last policy,
acting as in training: none is greedy, as most published figures are of training.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from agents_zoo import ppo
from benchmarks import reference_ppo
from rlws import environments
from rlws.actor import Actor
from rlws.agent import Agent, AgentConfig
from rlws.analysis.statistics import difference_interval, interquartile_mean, interval
from rlws.networks import CNN, MLP
from rlws.numerics import memo
from rlws.trainers import DeviceTrainer, evaluation
from rlws.types import Params

NUM_ENVS, UNROLL, EPOCHS, MINIBATCHES, RATE = 64, 128, 4, 8, 1e-3
EPISODES = 100
CONTESTANTS = ("reference", "ours, its settings", "ours, our settings")
Train = Callable[[int], tuple[Params, float]]  # of a seed: parameters, seconds


class Reference(Actor):
    """Acts by the policy of the reference."""

    def select_action(self, params, timestep, state, key):
        logits = reference_ppo._network(params["policy"], timestep.observation[None])[0]
        return jax.random.categorical(key, logits), state, {}


def reference(environment: environments.JaxEnvironment, steps: int) -> tuple[Train, Agent]:
    """Returns how the reference trains, and the agent that acts by what comes of it."""
    settings = reference_ppo.Settings(
        NUM_ENVS, UNROLL, EPOCHS, MINIBATCHES, RATE, (128,), channels=16, environment=environment
    )
    iterations = steps // (NUM_ENVS * UNROLL)
    init = jax.jit(lambda key: reference_ppo.init(settings, key))
    program = jax.jit(lambda state: reference_ppo.train(settings, state, iterations)[0])
    compiled = program.lower(jax.eval_shape(init, jax.random.key(0))).compile()

    def train(seed):
        state, began = init(jax.random.key(seed)), time.perf_counter()
        params = jax.block_until_ready(compiled(state).params)
        return params, time.perf_counter() - began

    agent, actor = ppo.Config().make(environments.spec(environment)), Reference()
    return train, dataclasses.replace(agent, actor=actor, evaluator=actor)


def ours(
    config: AgentConfig, num_envs: int, environment: environments.JaxEnvironment, steps: int
) -> tuple[Train, Agent]:
    """Returns how an agent of ours trains, and that agent, acting as in training."""
    trainer = DeviceTrainer(num_envs=num_envs)

    def train(seed):
        reports = trainer.train(config, environment, seed=seed, steps=steps, report_period=steps)
        first, began = next(reports), time.perf_counter()  # before any step, all being compiled
        assert first.steps == 0
        *_, last = reports
        return jax.block_until_ready(last.params), time.perf_counter() - began

    agent = config.make(environments.spec(environment))
    return train, dataclasses.replace(agent, evaluator=agent.actor)


def contestant(name: str, environment: environments.JaxEnvironment, steps: int):
    """Returns one of `CONTESTANTS`: how it trains, and the agent that acts by what comes of it."""
    if name == "reference":
        return reference(environment, steps)
    backbone = CNN(mlp=MLP((128,), "relu"))
    alike = ppo.Config(
        backbone,
        learning_rate=RATE,
        unroll_length=UNROLL,
        epochs=EPOCHS,
        minibatches=MINIBATCHES,
        value_clip=reference_ppo.CLIP,
        entropy_cost=reference_ppo.ENTROPY_COST,
        normalise_observations=False,
        scale_rewards=False,
    )
    if name == "ours, its settings":
        return ours(alike, NUM_ENVS, environment, steps)
    usual = ppo.Config(backbone, unroll_length=UNROLL, anneal_steps=steps)
    return ours(usual, 16, environment, steps)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", default="gymnax:Breakout-MinAtar")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each run, then what they come to."""
    args = _parser().parse_args(arguments)
    memo.share()  # of runs alike, only the first compiles
    environment = environments.make(args.environment)
    found = {name: contestant(name, environment, args.steps) for name in args.contestants}
    scores: dict[str, list[float]] = {name: [] for name in found}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    evaluators = {
        name: evaluation.evaluator(agent, environment, EPISODES)
        for name, (_, agent) in found.items()
    }
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name, (train, _) in found.items():
            params, took = train(seed)
            scores[name].append(float(np.mean(evaluators[name](params, seed)[0])))
            seconds[name].append(took)
            print(f"seed {seed}  {name:<20}{scores[name][-1]:8.2f}  {took:6.1f} s", flush=True)
    print(f"\n{args.environment}, {args.steps:,} steps, {args.seeds} seeds from {args.first_seed}")
    for name, values in scores.items():
        low, high = interval(np.array(values))
        speed = args.steps / np.median(seconds[name])
        text = f"{name:<20}{interquartile_mean(np.array(values)):8.2f} [{low:.2f}, {high:.2f}]"
        if "reference" in scores and name != "reference":
            span = difference_interval(np.array(values), np.array(scores["reference"]))
            text += "  differs by [{:.2f}, {:.2f}]".format(*span)
        print(f"{text}  {speed:,.0f} steps/s")


if __name__ == "__main__":
    main()
