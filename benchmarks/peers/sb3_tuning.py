"""Optuna with stable-baselines3's PPO on CartPole; prints a line of JSON.

Its argument is JSON: seconds and environment steps of the search (either may be null), steps of a
trial, its seed, and fresh ones.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import optuna
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

ETA, RUNGS = 4, 3


def model(settings: dict[str, Any], seed: int) -> PPO:
    """Returns a learner that has seen nothing."""
    environments = make_vec_env("CartPole-v1", 4, seed=seed)
    how = {"n_steps": 512, "batch_size": 512, "device": "cpu", "seed": seed}
    return PPO("MlpPolicy", environments, **how, **settings)


def score(learner: PPO, seed: int) -> float:
    """Returns the mean return of 20 episodes."""
    played = make_vec_env("CartPole-v1", 10, seed=10_000 + seed)
    return float(np.mean(evaluate_policy(learner, played, 20)[0]))


def main() -> None:
    """Searches, and trains the winner with fresh seeds."""
    seconds, most, steps, seed, fresh = json.loads(sys.argv[1])
    began, taken = time.monotonic(), 0
    torch.set_num_threads(1)  # more are slower for networks as small as this
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stops = [steps // ETA**i for i in reversed(range(RUNGS))]

    def objective(trial):
        nonlocal taken
        settings = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
            "gamma": trial.suggest_float("gamma", 0.9, 0.999),
        }
        learner, found = model(settings, seed), 0.0
        for stop in stops:
            before = learner.num_timesteps
            learner.learn(stop - before, reset_num_timesteps=False)
            taken += learner.num_timesteps - before
            found = score(learner, seed)
            trial.report(found, stop)
            if trial.should_prune():
                raise optuna.TrialPruned
        return found

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=stops[0], reduction_factor=ETA)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    enough = lambda study, trial: study.stop() if most is not None and taken >= most else None
    study.optimize(objective, timeout=seconds, callbacks=[enough])
    took = time.monotonic() - began
    ends = [score(model(study.best_params, s).learn(steps), s) for s in fresh]
    mean = float(np.mean(ends))
    print(json.dumps([len(study.trials), took, taken, study.best_params, mean]))


if __name__ == "__main__":
    main()
