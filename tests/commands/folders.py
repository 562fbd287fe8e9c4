"""Run folders written by hand: as a run leaves them, without one."""

import csv
import json

CONFIG = {
    "type": "rlws.runs.experiment:Experiment",
    "name": "toy",
    "environment": "jax:Catch",
    "agent": {
        "type": "agents_zoo.reinforce:Config",
        "backbone": {"type": "rlws.networks.backbones:MLP", "hidden_sizes": [64, 64]},
        "learning_rate": 0.003,
    },
    "trainer": {"type": "rlws.trainers.device:DeviceTrainer", "num_envs": 4, "num_seeds": 1},
    "steps": 400,
    "seed": 0,
    "directory": "elsewhere",
}
STEPS = (0, 100, 200, 300, 400)


def write_run(folder, seed=0, score=1.0, returns=(None, 1, 2, 3, 4), summary=None, **changes):
    """Writes a run with a `score` and episode returns; changes are of agent__learning_rate=..."""
    config = json.loads(json.dumps(CONFIG)) | {"seed": seed}
    for name, value in changes.items():
        *path, last = name.split("__")
        holder = config
        for part in path:
            holder = holder[part]
        holder[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with open(folder / "metrics.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["steps", "episodes", "episode_return", "loss"])
        for i, (steps, value) in enumerate(zip(STEPS, returns, strict=True)):
            table.writerow([steps, i, "" if value is None else value, 0.5])
    if summary is None:
        summary = {"experiment": "toy", "seed": seed, "steps": 400, "episodes": 4, "updates": 7}
        summary |= {"seconds": 75.0, "training_return_last_100": 2.5}
        summary |= {"evaluation_return_mean": score, "evaluation_return_std": 0.25}
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def write_seeds(folder, scores, first=0, **changes):
    """Writes a sweep over seeds with these scores."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    rows = [[f"{i}_seed{first + i}", first + i] for i in range(len(scores))]
    for (name, seed), score in zip(rows, scores, strict=True):
        write_run(folder / name, seed, score, **changes)
    with open(folder / "members.csv", "w", newline="") as file:
        csv.writer(file).writerows([["member", "seed"], *rows])
    return folder
