"""Optuna with stable-baselines3's PPO on CartPole; prints a line of JSON.

Its argument is JSON: seconds of the search, steps of a trial, its seed, and fresh ones.
"""

import json
import sys
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
    seconds, steps, seed, fresh = json.loads(sys.argv[1])
    torch.set_num_threads(1)  # more are slower for networks as small as this
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stops = [steps // ETA**i for i in reversed(range(RUNGS))]

    def objective(trial):
        settings = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
            "gamma": trial.suggest_float("gamma", 0.9, 0.999),
        }
        learner, found = model(settings, seed), 0.0
        for stop in stops:
            learner.learn(stop - learner.num_timesteps, reset_num_timesteps=False)
            found = score(learner, seed)
            trial.report(found, stop)
            if trial.should_prune():
                raise optuna.TrialPruned
        return found

    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=stops[0], reduction_factor=ETA)
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    study.optimize(objective, timeout=seconds)
    ends = [score(model(study.best_params, s).learn(steps), s) for s in fresh]
    print(json.dumps([len(study.trials), study.best_params, float(np.mean(ends))]))


if __name__ == "__main__":
    main()
